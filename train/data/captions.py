"""Sentences such as describe a picture, of a small grammar: no open set that may be shipped has enough of them.

A sentence comes with what is close to it but not the same: the other person, the other thing, the action denied, the
sentence turned around. What a teacher makes of the difference is what a student learns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator


def words(listed: str) -> list[str]:
    """The words of a list; a plus stands for a space within one."""
    return listed.split()


PEOPLE = words(
    """man woman boy girl child baby person lady guy kid toddler teenager dancer singer cook chef player runner
cyclist biker skateboarder surfer swimmer diver climber hiker skier snowboarder rider worker farmer soldier policeman
fireman nurse doctor teacher student artist painter musician drummer guitarist violinist photographer tourist waiter
bride groom mother father grandmother old+man young+woman young+man
little+boy little+girl couple+of+friends group+of+men
group+of+women group+of+children crowd+of+people football+player basketball+player tennis+player street+vendor
"""
)

ANIMALS = words(
    """dog cat puppy kitten horse cow sheep goat pig lion tiger bear panda monkey elephant giraffe zebra rabbit
hamster squirrel mouse bird parrot duck chicken eagle owl fish turtle snake frog brown+dog black+dog white+dog big+dog
small+dog black+cat group+of+dogs herd+of+cows flock+of+birds"""
)

LOOKS = words(
    """tall short young old happy tired smiling bald blond bearded dark-haired barefoot elderly muscular laughing
shirtless"""
)

WEAR = words(
    """hat helmet red+shirt blue+shirt white+dress black+jacket suit uniform costume coat scarf mask glasses
backpack swimsuit yellow+raincoat pair+of+jeans"""
)

# A verb, its form with -ing and its participle; then what it is done to.
DEEDS = """
play|playing|played : guitar;piano;violin;flute;drums;trumpet;harp;keyboard
ride|riding|ridden : bicycle;horse;motorcycle;skateboard;wave;bus;scooter;elephant;bull
cut|cutting|cut : onion;tomato;potato;carrot;cake;paper;rope;grass;cucumber;piece+of+meat;tree
slice|slicing|sliced : onion;tomato;bread;garlic;pepper;mushroom;ham;lemon
eat|eating|eaten : sandwich;apple;banana;pizza;bowl+of+rice;ice+cream;slice+of+cake;carrot;leaf
cook|cooking|cooked : egg;fish;soup;noodles;chicken;steak;pancake;rice
fry|frying|fried : egg;fish;potato;onion;shrimp
mix|mixing|mixed : batter;salad;flour+and+water;paint;vegetables
pour|pouring|poured : water;milk;oil;sauce;wine;cup+of+tea;egg+into+a+bowl
peel|peeling|peeled : potato;orange;banana;shrimp;apple
wash|washing|washed : car;dishes;window;dog;hands;vegetables
paint|painting|painted : wall;picture;fence;portrait;house
draw|drawing|drawn : picture;face;line;map
write|writing|written : letter;song;word+on+a+blackboard;note
read|reading|read : book;newspaper;map;story;magazine
throw|throwing|thrown : ball;frisbee;stone;snowball;stick;spear
catch|catching|caught : ball;frisbee;fish;stick;butterfly
kick|kicking|kicked : ball;door;can;opponent
hold|holding|held : ball;baby;camera;flag;umbrella;sign;cup;microphone;cat
carry|carrying|carried : bag;box;child;surfboard;ladder;bucket+of+water
push|pushing|pushed : cart;stroller;car;shopping+trolley;swing
pull|pulling|pulled : rope;sled;cart;suitcase;boat
lift|lifting|lifted : weight;box;child;log
open|opening|opened : door;box;package;window;bottle;can
close|closing|closed : door;box;window;book;laptop
drive|driving|driven : car;truck;tractor;bus;boat
repair|repairing|repaired : bicycle;car;roof;computer;shoe
build|building|built : house;wall;sand+castle;snowman;fire;table
climb|climbing|climbed : rock;tree;ladder;mountain;wall;rope
jump over|jumping over|jumped over : fence;wall;puddle;log;hurdle
chase|chasing|chased : ball;cat;rabbit;car;bird;child
watch|watching|watched : television;game;film;bird;parade
feed|feeding|fed : dog;baby;duck;horse;goat
brush|brushing|brushed : hair;teeth;horse;dog
tie|tying|tied : shoe;knot;rope
point at|pointing at|pointed at : map;sign;bird;picture
take|taking|taken : photo;selfie;bath;break;picture+of+a+building
sew|sewing|sewn : dress;shirt;button
drink|drinking|drunk : water;coffee;beer;glass+of+milk;cup+of+tea
wear|wearing|worn : hat;helmet;mask;costume;coat
sell|selling|sold : fruit;flowers;fish;newspapers;hats
shoot|shooting|shot : gun;bow;basketball;arrow;target
""".strip().splitlines()

ACTS = words(
    """running walking sleeping sitting standing dancing singing swimming jumping laughing talking crying smiling
exercising skating skiing surfing fishing camping shopping praying working resting waving shouting kneeling crawling
doing+a+handstand doing+push-ups doing+a+trick+on+a+bicycle lying+down leaning+against+a+wall looking+at+the+camera
talking+on+the+phone waiting+for+a+train warming+up cleaning+up playing+cards playing+chess playing+football
playing+tennis playing+in+the+sand"""
)

ANIMAL_ACTS = words(
    """running walking sleeping sitting standing swimming jumping barking eating drinking playing resting
rolling+on+its+back chasing+a+ball carrying+a+stick+in+its+mouth catching+a+frisbee digging+a+hole
looking+at+the+camera
shaking+off+water flying jumping+over+a+fence lying+in+the+sun watching+a+bird licking+its+paw playing+with+a+toy
climbing+a+tree"""
)

PLACES = words(
    """in+the+park in+the+street on+the+beach in+the+water on+a+stage in+a+kitchen in+the+snow
in+a+field on+the+grass
on+a+couch on+a+bench in+a+room in+front+of+a+house near+a+lake at+a+table in+a+crowd on+a+rock in+a+pool under+a+tree
on+the+sidewalk by+the+river in+a+restaurant at+the+market on+a+bridge in+a+boat on+a+mountain in+a+garden
in+the+rain on+a+track in+a+gym indoors outdoors at+night in+a+forest on+a+dirt+road behind+a+fence at+a+party
in+an+office on+a+train in+a+stadium on+the+roof across+the+street near+a+car
in+the+mud in+the+air down+a+hill"""
)

THINGS = words(
    """car truck bus train boat bicycle motorcycle plane helicopter table chair bench house church tower bridge
fountain tree flower mountain lake river road train+station market clock sign umbrella kite balloon tent pile+of+books
bowl+of+fruit plate+of+food bottle+of+wine cup+of+coffee laptop computer+screen traffic+light fire+hydrant"""
)

THING_LOOKS = words(
    """red blue green white black yellow old new small large wooden broken empty parked crowded colorful
modern rusty"""
)

UNCOUNTED = {"noodles", "dishes", "vegetables", "hands", "teeth", "hair", "flowers", "newspapers", "hats", "glasses"}
NO_ARTICLE = {"water", "milk", "oil", "wine", "rice", "bread", "garlic", "ham", "coffee", "beer", "soup", "grass"}
NO_ARTICLE |= {"paper", "television", "fruit", "flour+and+water", "paint", "ice+cream", "batter", "meat", "steak"}


def captions(draw: random.Random, count: int) -> Iterator[str]:
    """So many sentences; those that vary one another are neighbours."""
    made = 0
    while made < count:
        family = list(dict.fromkeys(draw.choice((_deed, _deed, _act, _animal, _thing))(draw)))
        for sentence in family[: count - made]:
            text = sentence.replace("+", " ")
            yield text[0].upper() + text[1:] + draw.choice(("", ".", "."))
        made += len(family)


def _deed(draw: random.Random) -> list[str]:
    verbs, things = draw.choice(DEEDS).split(" : ")
    _, doing, done = verbs.split("|")
    thing, another = (_with_article(draw.choice(things.split(";"))) for _ in range(2))
    who, other = _who(draw), _who(draw)
    place = draw.choice(("", "", f" {draw.choice(PLACES)}"))
    others, their = draw.choice(DEEDS).split(" : ")
    else_ = f"{others.split('|')[1]} {_with_article(draw.choice(their.split(';')))}"
    verb = _verb(who)
    passive = "are" if thing in UNCOUNTED else "is"
    forms = [
        f"{who} {verb} {doing} {thing}{place}",
        f"{who} {verb} {doing} {another}{place}",
        f"{other} {_verb(other)} {doing} {thing}{place}",
        f"{who} {verb} not {doing} {thing}{place}",
        f"there is no {_bare(who)} {doing} {thing}{place}",
        f"{thing} {passive} being {done} by {who}{place}",
        f"{who} {verb} {else_}{place}",
        f"{who}, who {verb} {doing} {thing}, {verb} {draw.choice(ACTS)}",
        f"{who} {verb} {doing} {thing} {draw.choice(PLACES)}",
        f"{who} {verb} {doing} {thing} while {other} {_verb(other)} {draw.choice(ACTS)}",
    ]
    return [forms[0], *draw.sample(forms[1:], 3)]


def _act(draw: random.Random) -> list[str]:
    who, other = _who(draw), _who(draw)
    verb, act, place = _verb(who), draw.choice(ACTS), draw.choice(PLACES)
    forms = [
        f"{who} {verb} {act} {place}",
        f"{who} {verb} {act}",
        f"{who} {verb} {draw.choice(ACTS)} {place}",
        f"{other} {_verb(other)} {act} {place}",
        f"{who} {verb} not {act} {place}",
        f"nobody is {act} {place}",
        f"two {draw.choice(('men', 'women', 'boys', 'girls', 'kids', 'people'))} are {act} {place}",
        f"{who} wearing {_with_article(draw.choice(WEAR))} {verb} {act} {place}",
        f"{who} and {other} are {act} {place}",
        f"{who} {verb} {act} and {other} {_verb(other)} {draw.choice(ACTS)}",
        f"{who} {verb} {act} next to {_with_article(draw.choice(THINGS))}",
    ]
    return [forms[0], *draw.sample(forms[1:], 3)]


def _animal(draw: random.Random) -> list[str]:
    animal, other = (_with_article(draw.choice(ANIMALS)) for _ in range(2))
    act, place = draw.choice(ANIMAL_ACTS), draw.choice(PLACES)
    forms = [
        f"{animal} is {act} {place}",
        f"{animal} is {draw.choice(ANIMAL_ACTS)} {place}",
        f"{other} is {act} {place}",
        f"{animal} is not {act} {place}",
        f"{animal} {act}",
        f"{animal} and {other} are {act} {place}",
        f"{_who(draw)} with {animal} {place}",
        f"{animal} is {act} and {_who(draw)} is watching",
    ]
    return [forms[0], *draw.sample(forms[1:], 2)]


def _thing(draw: random.Random) -> list[str]:
    thing, look, place = draw.choice(THINGS), draw.choice(THING_LOOKS), draw.choice(PLACES)
    forms = [
        f"{_with_article(f'{look}+{thing}')} {place}",
        f"{_with_article(f'{draw.choice(THING_LOOKS)}+{thing}')} {place}",
        f"there is {_with_article(thing)} {place}",
        f"{_who(draw)} {draw.choice(('in front of', 'next to', 'behind'))} {_with_article(f'{look}+{thing}')}",
        f"close-up of {_with_article(f'{look}+{thing}')}",
        f"{_with_article(thing)} and {_with_article(draw.choice(THINGS))} {place}",
    ]
    return [forms[0], *draw.sample(forms[1:], 2)]


def _who(draw: random.Random) -> str:
    person = draw.choice(PEOPLE)
    if "+" not in person and draw.random() < 0.25:
        person = f"{draw.choice(LOOKS)}+{person}"
    return _with_article(person, "the" if draw.random() < 0.3 else "")


def _verb(who: str) -> str:
    return "are" if any(f"{many}+of" in who for many in ("couple", "group", "crowd")) and "people" in who else "is"


def _bare(who: str) -> str:
    return who.split(" ", 1)[1]


def _with_article(noun: str, article: str = "") -> str:
    if not article and (noun in NO_ARTICLE or noun in UNCOUNTED):
        return noun
    return f"{article or ('an' if noun[0] in 'aeiou' else 'a')} {noun}"
