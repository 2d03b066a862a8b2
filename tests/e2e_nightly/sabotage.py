"""What is done in the lab's VM, as root, in the words of its shell. Braces are for `format`."""

SET_CLOCK = 'date --set "@$(($(date +%s) + {seconds}))"'

# A container as a hand would start it, alike in name, label, nonce and port.
RUN = """
docker rm --force lab-canary
docker run --detach --name lab-canary --label io.lab.uuid={uuid} --env CANARY_NONCE={nonce} \
    --publish {port}:5555 {more} {image}
"""

# What the canary's L2 is made of, without its kernel, under the canary's own name.
IMPOSTOR = """
work=$(mktemp -d) && cd "$work"
docker create --name source {image} >/dev/null
docker cp source:/opt/canary/initramfs - | tar -x
docker rm source >/dev/null
mkdir root && cd root
busybox cpio -idm <../initramfs
mkdir -p opt/canary
cat >opt/canary/entrypoint <<'END'
{script}
END
chmod 0755 opt/canary/entrypoint
tar -c . | docker import --change 'ENTRYPOINT ["/opt/canary/entrypoint"]' - {image}
"""

FULL = """
room=$(($(df --output=avail -B1 / | tail -n 1) - 1048576))
fallocate --length "$room" /var/full
dd if=/dev/zero of=/var/rest bs=4k 2>/dev/null || :
df --output=avail / | tail -n 1
"""

# With one processor online: an emulated one may otherwise run the scheduler while the kernel patches it.
WITH_ONE_CPU = """
cpu=/sys/devices/system/cpu/cpu1/online
[ ! -e $cpu ] || echo 0 >$cpu
{script}
[ ! -e $cpu ] || echo 1 >$cpu
"""
BLOCK_MODULE = """
module=$(cd /sys/module && echo kvm_[ai]*)
printf 'blacklist %s\\ninstall %s /bin/false\\n' "$module" "$module" >/etc/modprobe.d/fault.conf
systemctl stop lab-hold-kvm
modprobe --remove "$module"
test ! -e /dev/kvm
"""
LET_MODULE_IN = """
module=$(sed -n 's/^blacklist //p' /etc/modprobe.d/fault.conf)
rm /etc/modprobe.d/fault.conf
modprobe "$module"
udevadm settle
systemctl start lab-hold-kvm
"""
