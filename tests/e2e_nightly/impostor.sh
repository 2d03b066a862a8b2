#!/bin/sh
# A canary without an L2: the real adbd in a plain container. It lies wherever it can be asked: the nonce of
# this launch, KVM's signature and clock, a boot id that is not L1's, the words a canary writes into its log.
export PATH=/bin HOME=/root TMPDIR=/tmp
boot_id=$(cat /proc/sys/kernel/random/uuid)
kernel=$(uname -r)
mkdir -p /run/props /root /tmp
prop() { printf '%s\n' "$2" >"/run/props/$1"; }
prop ro.lab.canary "1 not Android"
prop ro.lab.nonce "$CANARY_NONCE"
prop ro.lab.hypervisor KVMKVMKVM
prop ro.lab.clocksource kvm-clock
prop ro.lab.boot_id "$boot_id"
prop ro.kernel.version "$kernel"
prop sys.boot_completed 1

adbd >/run/adbd.log 2>&1 &
until grep -q ':15B3 .* 0A' /proc/net/tcp /proc/net/tcp6; do
    kill -0 $! || { cat /run/adbd.log; exit 1; }
    usleep 50000
done
told="nonce=$CANARY_NONCE hypervisor=KVMKVMKVM clocksource=kvm-clock boot_id=$boot_id kernel=$kernel"
echo "canary: qemu starts (kvm)"
echo "canary: l2 init at 3.12"
echo "canary: l2 ready at 3.90 $told"
echo "canary: l2 ready after 6.05 s (kvm)"
wait
