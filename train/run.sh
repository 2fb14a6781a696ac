#!/usr/bin/env bash
# Train the model in the package, from raw sets to the exported folder: train/run.sh UNPACKED WORK
# UNPACKED has a folder for each public set (train/data/data_sets.py names them). Texts, training and the teacher's
# scores that are there are not made again: an interrupted run goes on. TEXTS is how many texts there are to distil
# (0: all that can be cut); pico.toml says how many of them a run takes.
set -euo pipefail
[ $# = 2 ] || { echo "usage: train/run.sh UNPACKED WORK" >&2; exit 2; }
unpacked=$(realpath "$1") here=$(realpath "$(dirname "$0")")
mkdir -p "$2"
cd "$2"

[ -f rows/sources.toml ] || python "$here/data/prepare.py" "$unpacked" rows --class A
[ -f texts/long.jsonl ] || python "$here/data/spans.py" rows texts --texts "${TEXTS:-800000}"
[ -f texts/labeled.jsonl ] || python "$here/data/adapter_rows.py" rows texts

# Hard negatives as the teacher finds them; then stage 1, and the adapters.
[ -f texts/mined.jsonl ] || jv5kit mine texts/pairs.jsonl -n 1 -m all-MiniLM-L6-v2 -o texts/mined.jsonl
again=; [ -f run/run.toml ] && again=--resume
jv5kit train --config "$here/pico.toml" -o run $again

# The scores that the card has, beside the teacher's.
sets=${SETS:-stsb_multi/en,sick2014/*,cranfield,vaswani,msmarco_dl_5k,clu_*,banking77,clinc150,scitldr}
measure() {
  jv5kit eval --data "$unpacked" --tasks "$sets" --dims 384,256,64 --precisions "$precisions" --dtype float32 --json -m "$@"
}
[ -f teacher.json ] || { precisions=float32 measure all-MiniLM-L6-v2 > teacher.tmp; mv teacher.tmp teacher.json; }
cp "$here/pico-notes.md" run/notes.md
jv5kit export run -o int8 --int8 --force
precisions=float32,ubinary,ubinary+codes,ubinary+int8 measure int8 --against teacher.json > scores.tmp
mv scores.tmp run/scores.json
jv5kit export run -o pico --int8 --force
