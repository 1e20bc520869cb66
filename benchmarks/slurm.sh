#!/usr/bin/env bash
# A real SLURM of two nodes with one processor each, on this one machine: controller, two node daemons, munge.
#
#   benchmarks/slurm.sh up      install it (Debian, as root) and start it
#   benchmarks/slurm.sh env     print what `eval` makes sbatch find it
#   benchmarks/slurm.sh down    end every process that `up` started, and remove its folder
set -euo pipefail
here=${QUIETRAY_SLURM:-/tmp/quietray-slurm}

up() {
    command -v slurmctld slurmd munged >/dev/null || {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
    }
    mkdir -p "$here"/{state,spool-n1,spool-n2}
    chmod 755 "$here"
    dd if=/dev/urandom of="$here/munge.key" bs=64 count=1 status=none
    chmod 400 "$here/munge.key"
    munged --key-file="$here/munge.key" --socket="$here/munge.socket" --pid-file="$here/munged.pid" \
        --log-file="$here/munged.log" --seed-file="$here/munge.seed"
    cat >"$here/slurm.conf" <<CONF
ClusterName=quietray
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$here/munge.socket
CredType=cred/munge
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool-%n
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd-%n.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdLogFile=$here/slurmd-%n.log
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
ReturnToService=2
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=16818 CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=16819 CPUs=1 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$here/slurm.conf
    slurmctld
    slurmd -N n1
    slurmd -N n2
    for _ in $(seq 60); do
        [ "$(sinfo -h -N -t idle 2>/dev/null | wc -l)" = 2 ] && break
        sleep 1
    done
    sinfo -N
}

down() {
    if [ -f "$here/slurm.conf" ]; then
        export SLURM_CONF=$here/slurm.conf
        scancel --user="$(id -un)" 2>/dev/null || true
        sleep 1
    fi
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        if [ -f "$here/$name.pid" ]; then kill "$(cat "$here/$name.pid")" 2>/dev/null || true; fi
    done
    sleep 2
    rm -rf "$here"
}

case ${1:-} in
    up) up ;;
    env) echo "export SLURM_CONF=$here/slurm.conf" ;;
    down) down ;;
    *) sed -n '2,7p' "$0"; exit 2 ;;
esac
