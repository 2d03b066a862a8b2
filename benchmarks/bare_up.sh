#!/bin/sh
# The steps of `lab.up` on the embedded engine with cached images, by hand and with nothing checked:
# what lab's own time is measured against. Used by `bin/invoke bench`.
#
# Usage: bare_up.sh WORK BASE_DISK SEED_ISO KEYS_FOLDER CANARY_TAR CANARY_REFERENCE ADB SSH_PORT ADB_PORT
set -eu
work=$1 base=$2 seed=$3 keys=$4 tar=$5 reference=$6 adb=$7 ssh_port=$8 adb_port=$9

inside() { ssh $options -p "$ssh_port" lab@127.0.0.1 "$@"; }
options="-F /dev/null -i $keys/id_ed25519 -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes
    -o UserKnownHostsFile=$keys/known_hosts -o ConnectTimeout=10 -o LogLevel=ERROR
    -o ControlMaster=auto -o ControlPath=$work/ssh -o ControlPersist=yes"

qemu-img create -q -f qcow2 -b "$base" -F qcow2 "$work/disk.qcow2" 12G
qemu-system-x86_64 -nodefaults -no-user-config -machine q35 -cpu max,la57=off,cx16=off,svm=on,npt=on -smp 2 \
    -accel tcg,thread=multi -m 4096M -display none -vga std \
    -drive "file=$work/disk.qcow2,if=virtio,discard=unmap" -drive "file=$seed,if=virtio,format=raw,readonly=on" \
    -netdev "user,id=net0,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$adb_port-:5555" \
    -device virtio-net-pci,netdev=net0,romfile= -device virtio-rng-pci \
    -serial "file:$work/console.log" </dev/null >"$work/qemu.log" 2>&1 &
qemu=$!
trap 'kill $qemu 2>/dev/null; "$adb" -P 15999 kill-server 2>/dev/null || true' EXIT
until inside true 2>/dev/null; do sleep 0.5; done

scp -q $options -P "$ssh_port" "$tar" lab@127.0.0.1:/var/tmp/canary.tar &
copy=$!
inside "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-download \
    -o Dpkg::Options::=--force-unsafe-io docker.io docker-cli apparmor" >"$work/apt.log" 2>&1
until inside "sudo docker info" >/dev/null 2>&1; do sleep 0.5; done
wait $copy
inside "sudo docker load --quiet --input /var/tmp/canary.tar" >/dev/null
inside "sudo docker run --detach --name canary --user 65534:65534 --read-only --tmpfs /tmp --env CANARY_NONCE=bench \
    --device /dev/kvm --group-add \$(stat --format %g /dev/kvm) --publish 10.0.2.15:5555:5555 $reference" >/dev/null

export HOME=$work ADB_EMU=0 ADB_MDNS=0
until [ "$("$adb" -P 15999 connect "127.0.0.1:$adb_port" >/dev/null 2>&1
    "$adb" -P 15999 -s "127.0.0.1:$adb_port" shell getprop sys.boot_completed 2>/dev/null)" = 1 ]; do
    sleep 0.5
done
