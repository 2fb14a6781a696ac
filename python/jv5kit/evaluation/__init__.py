"""How good a ranking is: test collections, and the measures of the field on them."""
