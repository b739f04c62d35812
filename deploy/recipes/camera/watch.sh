#!/bin/sh
# Score a camera's picture against a baseline, again and again:
#   watch.sh SOURCE BASELINE.json [THRESHOLD] [SECONDS]
# Prints a JSON line for each frame, and tells on standard error what is unusual.
set -eu
source=$1 baseline=$2 threshold=${3:-0.15} every=${4:-10}
server=${CLIP_SERVER:-http://localhost:8093}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

while sleep "$every"; do
  if ! ffmpeg -nostdin -loglevel error -y -i "$source" -vf scale=640:-2 -frames:v 1 "$folder/frame.jpg"; then
    echo "no picture; trying again in $every s" >&2
    continue
  fi
  response=$(curl --silent --show-error --fail-with-body --max-time 30 \
    --form "image=@$folder/frame.jpg" --form "baseline_embedding=<$baseline" \
    --form "threshold=$threshold" "$server/anomaly-score") || continue
  echo "$response"
  case $response in
    *'"is_anomaly":true'*) echo "$(date): unusual" >&2 ;; # or: mail, a webhook, a lamp
  esac
done
