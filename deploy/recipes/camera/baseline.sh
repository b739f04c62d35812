#!/bin/sh
# Build a baseline from frames of a camera: baseline.sh SOURCE BASELINE.json [FRAMES] [SECONDS]
# SOURCE is whatever ffmpeg opens: rtsp://..., http://.../video.mjpg, a file.
set -eu
source=$1 baseline=$2 frames=${3:-20} every=${4:-30}
server=${CLIP_SERVER:-http://localhost:8093}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

ffmpeg -nostdin -loglevel error -i "$source" -vf "fps=1/$every,scale=640:-2" -frames:v "$frames" \
  "$folder/%03d.jpg"
set --
for frame in "$folder"/*.jpg; do
  set -- "$@" --form "images=@$frame"
done
curl --silent --show-error --fail-with-body "$@" "$server/baseline" > "$folder/response.json"
python3 - "$folder/response.json" "$baseline" <<'PYTHON'
import json, sys

response = json.load(open(sys.argv[1]))
json.dump(response["baseline_embedding"], open(sys.argv[2], "w"))
print("frames:", response["count"], "suggested threshold:", response["suggested_threshold"])
PYTHON
