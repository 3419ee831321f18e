#!/bin/bash
# A run on GKE by xpk (github.com/AI-Hypercomputer/xpk): a cluster with one slice, the bucket mounted, one workload.
#   PROJECT=my-project ZONE=us-east5-b BUCKET=my-bucket TYPE=v6e-16 IMAGE=us-docker.pkg.dev/my-project/jaxtool/trainer \
#       docs/launch/xpk.sh NAME --gin_file gin_configs/runs/otc_grpo_7b_v6e_16.gin [more flags of experiments.train]
# IMAGE is docs/launch/Dockerfile built with --build-arg EXTRA=tpu and pushed. Each step may be run again: what is there
# is left alone. Delete the cluster at the end, or it costs money: xpk cluster delete --cluster=jaxtool ...
set -euo pipefail
if [ "$#" -lt 2 ]; then
  echo "PROJECT= ZONE= BUCKET= TYPE= IMAGE= docs/launch/xpk.sh NAME --gin_file RUN.gin [more flags]" >&2
  exit 2
fi
: "${PROJECT:?}" "${ZONE:?}" "${BUCKET:?}" "${TYPE:?}" "${IMAGE:?}"
cluster="${CLUSTER:-jaxtool}"
name="$1"
shift
place=(--cluster="$cluster" --project="$PROJECT" --zone="$ZONE")

xpk cluster create "${place[@]}" --tpu-type="$TYPE" --num-slices=1 --spot --enable-gcsfuse-csi-driver
# Every host must see at once what another one has written, and directories are renamed.
xpk storage attach "$BUCKET" "${place[@]}" --type=gcsfuse --bucket="$BUCKET" --size=1 \
  --mount-point=/bucket --readonly=false --auto-mount=true \
  --mount-options=implicit-dirs,rename-dir-limit=1000000,metadata-cache:ttl-secs:0
# A pod that is taken away must not look finished: status 143 is restarted.
command="JAXTOOL_STOP_STATUS=143 python -m experiments.train --distributed --workdir /bucket/jaxtool/$name/workdir $(printf '%q ' "$@")"
xpk workload create "${place[@]}" --workload="$name" --tpu-type="$TYPE" --num-slices=1 \
  --docker-image="$IMAGE" --max-restarts=50 --command="$command"
xpk workload list "${place[@]}" --wait-for-job-completion="$name"
