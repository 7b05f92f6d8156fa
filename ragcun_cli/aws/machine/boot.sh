#!/bin/bash
# User data of a ragcun machine: fetch the run's code, check it, start it. No secrets: the machine's role may do this.
# Whatever goes wrong, the machine shuts itself down, with its log in the bucket.
set -uo pipefail
@SETTINGS@
export HOME="${HOME:-/root}"
export RAGCUN_STORE="s3://$RAGCUN_BUCKET/$RAGCUN_PREFIX"
work="${RAGCUN_WORK:-/opt/ragcun}"
log="$work/boot.log"
mkdir -p "$work/code"
cd "$work" || { shutdown -h now; exit 1; }
exec > >(tee -a "$log") 2>&1

# Who we are, according to the metadata service (only IMDSv2 is enabled).
metadata="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest"
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token")
about() { curl -sf -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/$1"; }
RAGCUN_INSTANCE=$(about instance-id)
RAGCUN_ADDRESS=$(about local-ipv4)
RAGCUN_MACHINE_REGION=$(about placement/region)
export RAGCUN_INSTANCE RAGCUN_ADDRESS RAGCUN_MACHINE_REGION

# The first safeguard, before anything can hang: a shutdown terminates the machine (see the launch template).
shutdown -h "+$RAGCUN_MAX_MINUTES" "ragcun: --max-hours has run out"

give_up() {
    echo "ragcun: $1; this machine ends now"
    printf '{"state": "failed", "stage": "booting", "reason": "%s", "attempt": %s, "updated": "%s"}\n' \
        "$1" "$RAGCUN_ATTEMPT" "$(date -u +%FT%T+00:00)" > status.json
    aws s3 cp --only-show-errors status.json "${RAGCUN_STORE}status.json"
    aws s3 cp --only-show-errors "$log" "${RAGCUN_STORE}logs/boot-$RAGCUN_ATTEMPT.log"
    shutdown -h now
    exit 1
}

for pause in 5 15 45 0; do # a new role takes time to propagate
    aws s3 cp --only-show-errors "${RAGCUN_STORE}code/$RAGCUN_CODE.tar.gz" code.tar.gz && break
    [ "$pause" = 0 ] && give_up "the code could not be fetched"
    sleep "$pause"
done
echo "$RAGCUN_CODE  code.tar.gz" | sha256sum --check --quiet || give_up "the code differs from what was uploaded"
tar -xzf code.tar.gz -C code || give_up "the code could not be unpacked"
bash code/ragcun_cli/aws/machine/run.sh || give_up "run.sh ended with code $?"
