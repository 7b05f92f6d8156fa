#!/bin/bash
shutdown -h "+@MINUTES@" "ragcun: --max-hours has run out" || { (sleep $((60 * @MINUTES@)) && poweroff --force --force) & }
# User data of a ragcun machine. The line above comes first: whatever fails or hangs below, the machine shuts down, and
# a shutdown terminates it (see the launch template). Then: fetch the run's code, check it, install it, start it.
# No secrets: the machine's role may do this.
set -uo pipefail
# User data run once, and a reboot forgets the timer: a machine that comes up again, after a panic say, ends.
per_boot="${RAGCUN_ROOT:-}/var/lib/cloud/scripts/per-boot"
mkdir -p "$per_boot" && printf '#!/bin/sh\nshutdown -h now\n' > "$per_boot/ragcun" && chmod +x "$per_boot/ragcun"
@SETTINGS@
export HOME="${HOME:-/root}" PYTHONUNBUFFERED=1 COLUMNS=120
export RAGCUN_STORE="s3://$RAGCUN_BUCKET/$RAGCUN_PREFIX"
work="${RAGCUN_WORK:-/opt/ragcun}"
export RAGCUN_CACHE="$work/cache" RAGCUN_INSTANCE="" RAGCUN_ADDRESS="" RAGCUN_MACHINE_REGION=""
seconds_to_install=2400
if [ "$(id -u)" = 0 ]; then umask 022; fi
mkdir -p "$work/code" "$work/logs"
cd "$work" || { shutdown -h now; exit 1; }
exec > >(tee -a boot.log) 2>&1

# $1: whether the run's end was reported. If so, EC2 itself ends the machine, as a GPU driver that hangs can hold up a
# shutdown for ever. If not, only a shutdown: EC2 would take its own call for the owner's, after which `watch` starts no
# other machine.
end_machine() {
    if [ "$1" = reported ] && [ -n "$RAGCUN_MACHINE_REGION" ]; then
        timeout 60 aws ec2 terminate-instances --region "$RAGCUN_MACHINE_REGION" --instance-ids "$RAGCUN_INSTANCE"
    fi
    shutdown -h now
    sleep 300
    poweroff --force --force
    exit 1
}

give_up() {
    echo "ragcun: $1; this machine ends now"
    printf '{"state": "failed", "stage": "booting", "reason": "%s", "attempt": %s, "instance": "%s", "updated": "%s"}\n' \
        "$1" "$RAGCUN_ATTEMPT" "$RAGCUN_INSTANCE" "$(date -u +%FT%T+00:00)" > status.json
    timeout 120 aws s3 cp --only-show-errors boot.log "${RAGCUN_STORE}logs/boot-$RAGCUN_ATTEMPT.log"
    timeout 120 aws s3 cp --only-show-errors status.json "${RAGCUN_STORE}status.json" && end_machine reported
    end_machine silent
}

# Repeat what a brief outage of the network or of a package server could break.
again() {
    local pause
    for pause in 10 60 0; do
        "$@" && return
        sleep "$pause"
    done
    return 1
}

# Who we are, according to the metadata service (only IMDSv2 is enabled).
metadata="${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest"
ask() { timeout 40 curl -sf --max-time 5 --retry 3 --retry-connrefused "$@"; }
token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$metadata/api/token")
[ -n "$token" ] || give_up "the metadata service does not answer"
about() { ask -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/$1"; }
RAGCUN_INSTANCE=$(about instance-id)
RAGCUN_ADDRESS=$(about local-ipv4)
RAGCUN_MACHINE_REGION=$(about placement/region)
[ -n "$RAGCUN_INSTANCE" ] || give_up "the metadata service does not say which machine this is"
ln -f boot.log "logs/$RAGCUN_ATTEMPT-$RAGCUN_INSTANCE.log" # the same file: the run's log begins here

make_venv() {
    # Ubuntu has venv in a separate package, and its automatic updates may lock apt just after boot.
    python3 -m venv "$1" && return
    again apt-get -o DPkg::Lock::Timeout=600 update -qq
    again apt-get -o DPkg::Lock::Timeout=600 install -y -qq python3-venv && python3 -m venv "$1"
}

if ! command -v aws > /dev/null; then # AWS's images have its command line, others may not
    timeout 600 bash -c "$(declare -f make_venv again); make_venv awscli && again awscli/bin/pip install -q awscli"
    export PATH="$PATH:$work/awscli/bin"
fi

# launch.json names this machine once a schedule outside it will end it. Until then it does nothing.
seconds_to_be_recorded=900
is_recorded() {
    timeout 20 aws s3 cp --only-show-errors "${RAGCUN_STORE}launch.json" - | grep -q "\"$RAGCUN_INSTANCE\""
}
SECONDS=0
until is_recorded; do
    [ "$SECONDS" -lt "$seconds_to_be_recorded" ] ||
        give_up "the launch did not finish: launch.json does not name this machine"
    sleep 10
done

fetch_code() { timeout 300 aws s3 cp --only-show-errors "${RAGCUN_STORE}code/$RAGCUN_CODE.tar.gz" code.tar.gz; }
again fetch_code || give_up "the code could not be fetched"
echo "$RAGCUN_CODE  code.tar.gz" | sha256sum --check --quiet || give_up "the code differs from what was uploaded"
tar -xzf code.tar.gz -C code || give_up "the code could not be unpacked"

install() {
    make_venv venv || return
    # Install torch first and pinned: a looser requirement of another package would fetch another build.
    again venv/bin/pip install --quiet -c code/constraints.txt "$(grep '^torch==' code/constraints.txt)" || return
    again venv/bin/pip install --quiet -c code/constraints.txt './code[aws,demo,figures,tensorboard]'
}
echo "== installing, $(date -u +%FT%TZ)"
timeout "$seconds_to_install" bash -c "$(declare -f make_venv again install); install" ||
    give_up "the packages could not be installed within $((seconds_to_install / 60)) minutes"

export PATH="$work/venv/bin:$PATH"
for _ in 1 2 3; do
    "$work/venv/bin/python" -m ragcun_cli.aws.machine.supervisor
    code=$?
    [ "$code" = 0 ] && end_machine reported
    [ "$code" = 75 ] && end_machine silent
    echo "ragcun: the supervisor ended with code $code"
    pkill -KILL -f "^$work/venv/bin/" # what it may have left running
    sleep 10
done
give_up "the supervisor failed three times"
