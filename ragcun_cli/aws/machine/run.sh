#!/bin/bash
# Execute one run on this machine, from installation to report. boot.sh starts it in the run's working folder.
# Each part is a stage. A part that ends with code 75 was interrupted: what it saved is in the bucket, and the next
# machine resumes from there. Meanwhile uploads.py copies logs, results and the run's state to the bucket.
set -uo pipefail

if [ "$(id -u)" = 0 ]; then umask 022; fi
export RAGCUN_CACHE="$PWD/cache" PYTHONUNBUFFERED=1 COLUMNS=120
mkdir -p logs state results report
log="logs/$RAGCUN_ATTEMPT-$RAGCUN_INSTANCE.log"

stage() { echo "$1" > state/stage; echo "== $1, $(date -u +%FT%TZ)"; }

# End the run with a state, exit code and reason. uploads.py sees them, copies what is left, and ends.
finish() {
    printf '{"state": "%s", "exit_code": %s, "reason": "%s"}\n' "$1" "$2" "$3" > state/over.new
    mv state/over.new state/over
    if [ -z "${uploads:-}" ] || ! wait "$uploads"; then # not started yet, or failed: use the AWS CLI
        local status="${RAGCUN_STORE}status.json" folder
        # The first node reports for the run.
        if [ -e state/rank ] && [ "$(cat state/rank)" != 0 ]; then
            status="${RAGCUN_STORE}nodes/$RAGCUN_ATTEMPT/states/$RAGCUN_INSTANCE.json"
        fi
        printf '{"state": "%s", "stage": "%s", "exit_code": %s, "reason": "%s", "attempt": %s, "updated": "%s"}\n' \
            "$1" "$(cat state/stage)" "$2" "$3" "$RAGCUN_ATTEMPT" "$(date -u +%FT%T+00:00)" > status.json
        for folder in results report logs; do
            aws s3 sync --only-show-errors "$folder" "$RAGCUN_STORE$folder"
        done
        aws s3 cp --only-show-errors status.json "$status"
    fi
    aws ec2 terminate-instances --region "$RAGCUN_MACHINE_REGION" --instance-ids "$RAGCUN_INSTANCE" > /dev/null
    shutdown -h now # a fallback in case the request failed
    exit 0
}

# Run one part in the background, with its id in state/process: uploads.py stops it on a spot notice, or when the
# GPUs have been idle for too long, and writes the reason to state/stop.
part() {
    stage "$1"
    shift
    if [ -e state/stop ]; then finish "$(cat state/stop-as)" 75 "$(cat state/stop)"; fi
    "$@" &
    echo "$!" > state/process
    wait "$!"
    code=$?
    rm -f state/process
    if [ -e state/stop ]; then finish "$(cat state/stop-as)" 75 "$(cat state/stop)"; fi
    if [ "$code" = 75 ]; then finish interrupted 75 "stopped during $(cat state/stage)"; fi
    if [ "$code" != 0 ]; then finish failed "$code" "$(cat state/stage) ended with code $code"; fi
}

# A brief outage of the network or a package server must not end the run.
again() {
    local pause
    for pause in 10 60 0; do
        "$@" && return
        sleep "$pause"
    done
    return 1
}

install() {
    # Ubuntu has venv in a separate package, and its automatic updates may lock apt just after boot.
    python3 -m venv venv || {
        again apt-get -o DPkg::Lock::Timeout=600 update -qq
        again apt-get -o DPkg::Lock::Timeout=600 install -y -qq python3-venv && python3 -m venv venv
    } || return
    # Install torch first and pinned: a looser requirement of another package would fetch another build.
    again venv/bin/pip install --quiet -c code/constraints.txt "$(grep '^torch==' code/constraints.txt)" || return
    again venv/bin/pip install --quiet -c code/constraints.txt './code[aws,demo,figures,tensorboard]'
}

# uploads.py saves the run's results and ends it in time: if it fails, it is restarted.
keep_uploading() {
    until python -m ragcun_cli.aws.machine.uploads "$log"; do
        if [ -e state/over ]; then return 1; fi
        echo "ragcun: the uploads stopped; restarting them"
        sleep 10
    done
}

train() {
    local recipes=() recipe
    for recipe in recipes/*.yaml; do recipes+=(--recipe "$recipe"); done
    if [ "$RAGCUN_NODES" = 1 ]; then
        # Several recipes or seeds get one GPU each; a single training gets all GPUs.
        ragcun train "${recipes[@]}" ${RAGCUN_SEEDS:+--seeds "$RAGCUN_SEEDS"} --resume
        return
    fi
    for recipe in recipes/*.yaml; do # all nodes share one training, so these go one after another
        # shellcheck disable=SC2046 # several words: --node-rank R --master HOST:PORT
        ragcun train --recipe "$recipe" --nodes "$RAGCUN_NODES" $(cat state/place) --resume || return
    done
}

evaluate() {
    local models=() model
    for model in checkpoints/*/recipe.yaml; do models+=(--model "$(dirname "$model")"); done
    while read -r model; do models+=(--model "$model"); done < untouched
    ragcun eval beir "${models[@]}" --datasets "$RAGCUN_DATASETS" --precision "$RAGCUN_PRECISION" \
        --cache-limit "$RAGCUN_CACHE_LIMIT" --memory 4GiB
}

report() {
    ragcun report table --format markdown > report/table.md &&
        ragcun report table --format latex > report/table.tex &&
        ragcun report table --format json > report/table.json || return
    # A single arm has nothing to be compared with and thus no claims; its table is still complete.
    ragcun report claims > report/claims.txt || rm report/claims.txt
    ragcun report page --out report/page.html || echo "ragcun: the report page could not be made"
}

exec > >(tee -a "$log") 2>&1
stage installing
install || finish failed 4 "the packages could not be installed"
export PATH="$PWD/venv/bin:$PATH"
if [ "$RAGCUN_NODES" != 1 ]; then
    stage meeting
    python -m ragcun_cli.aws.machine.nodes > state/place || finish failed 1 "the nodes did not meet"
fi
keep_uploading &
uploads=$!

part fetching python -m ragcun_cli.aws.machine.inputs
# shellcheck disable=SC2046 # one option and name for each recipe
part preflight ragcun preflight --no-training $(printf -- "--recipe %s " recipes/*.yaml) --gpus "$RAGCUN_GPUS"
# shellcheck disable=SC2086 # several names
if [ -n "$RAGCUN_DOWNLOADS" ]; then part downloading ragcun data download $RAGCUN_DOWNLOADS; fi
# If an earlier machine has already trained, no trial is needed.
if [ "$RAGCUN_ATTEMPT" = 1 ] && [ "$RAGCUN_NODES" = 1 ]; then
    # shellcheck disable=SC2046
    part trying ragcun preflight $(printf -- "--recipe %s " recipes/*.yaml) --gpus "$RAGCUN_GPUS"
fi
part training train
if [ -e state/rank ] && [ "$(cat state/rank)" != 0 ]; then finish finished 0 "the first node continues"; fi
part evaluating evaluate
part reporting report
finish finished 0 ""
