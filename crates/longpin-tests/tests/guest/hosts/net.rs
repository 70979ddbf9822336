//! Two hosts: two soft-RoCE devices at the ends of a wire, which is a pair of virtual Ethernet devices.
//!
//! Each end is in a network namespace of its own where the kernel's soft-RoCE can do that. On 6.1 and 6.12 it opens its UDP
//! port in the first namespace only, and a device elsewhere hears nothing. There both ends are in the first namespace, and
//! the routes see to it that what goes from one address to the other takes the wire.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use longpin_tests::PATIENCE;
use longpin_tests::programs::gid;
use longpin_tests::scratch::load_module;

/// The server's device, and the client's.
pub(super) const DEVICES: [&str; 2] = ["rxea", "rxeb"];
const NAMESPACE: &str = "longpin-b";

/// A page to a packet, as for rxe0.
const WIRE: &str = "\
ip netns add longpin-b
ip link add lpa mtu 9000 type veth peer name lpb mtu 9000";

const APART: &str = "\
ip link set lpb netns longpin-b
ip addr add 10.77.0.1/24 dev lpa
ip link set lpa up
ip -n longpin-b addr add 10.77.0.2/24 dev lpb
ip -n longpin-b link set lpb up
rdma link add rxea type rxe netdev lpa
ip netns exec longpin-b rdma link add rxeb type rxe netdev lpb";

const NOT_APART: &str = "\
rdma link delete rxeb
rdma link delete rxea
ip -n longpin-b link set lpb netns 1
ip addr flush dev lpa";

/// An address of one's own is asked for in the table `local` first; here the wire comes before it.
const TOGETHER: &str = "\
ip addr add 10.77.0.1/32 dev lpa
ip addr add 10.77.0.2/32 dev lpb
ip link set lpb up
ip rule add pref 50 lookup local
ip rule del pref 0 lookup local
ip rule add pref 10 iif lo to 10.77.0.2 lookup 101
ip rule add pref 11 iif lo to 10.77.0.1 lookup 102
ip route add 10.77.0.2 dev lpa src 10.77.0.1 table 101
ip route add 10.77.0.1 dev lpb src 10.77.0.2 table 102
rdma link add rxea type rxe netdev lpa
rdma link add rxeb type rxe netdev lpb";

/// The wire and its ends; they stay as long as the guest.
pub(super) struct Net {
    is_apart: bool,
}

impl Net {
    /// The one of this guest.
    pub(super) fn get() -> Result<&'static Self> {
        static NET: OnceLock<Result<Net, String>> = OnceLock::new();
        // Made once: what failed would only fail otherwise when it is tried again.
        let net = NET.get_or_init(|| Self::new().map_err(|err| format!("{err:#}")));
        net.as_ref().map_err(|words| anyhow::anyhow!("{words}"))
    }

    fn new() -> Result<Self> {
        load_module("veth");
        let mut net = Self { is_apart: true };
        run(WIRE)?;
        run(APART)?;
        if !is_heard(NAMESPACE)? {
            run(NOT_APART)?;
            net.is_apart = false;
            together()?;
        }
        for device in DEVICES {
            await_address(device)?;
        }
        Ok(net)
    }

    pub(super) fn in_words(&self) -> &'static str {
        if self.is_apart {
            "two network namespaces"
        } else {
            "one network namespace: soft-RoCE of this kernel hears nothing in another (no UDP port 4791 there)"
        }
    }

    /// This program as the server's or the client's host runs it.
    pub(super) fn program(&self, is_client: bool) -> Result<Command> {
        let own = std::env::current_exe()?;
        if !(is_client && self.is_apart) {
            return Ok(Command::new(own));
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAMESPACE]).arg(own);
        Ok(command)
    }

    /// Bytes that have gone over the wire, to the client and from it.
    pub(super) fn moved() -> Result<[u64; 2]> {
        let read = |of: &str| -> Result<u64> {
            let path = format!("/sys/class/net/lpa/statistics/{of}_bytes");
            Ok(std::fs::read_to_string(path)?.trim().parse()?)
        };
        Ok([read("tx")?, read("rx")?])
    }
}

/// Somebody listens on RoCE's UDP port there.
fn is_heard(namespace: &str) -> Result<bool> {
    let ports = command(&format!("ip netns exec {namespace} cat /proc/net/udp"))?;
    Ok(ports.contains(":12B7 "))
}

fn together() -> Result<()> {
    for device in ["lpa", "lpb"] {
        let dir = Path::new("/proc/sys/net/ipv4/conf").join(device);
        std::fs::write(dir.join("accept_local"), "1")?;
        std::fs::write(dir.join("rp_filter"), "0")?;
    }
    run(TOGETHER)?;
    for (address, of, on) in [("10.77.0.2", "lpb", "lpa"), ("10.77.0.1", "lpa", "lpb")] {
        let mac = std::fs::read_to_string(format!("/sys/class/net/{of}/address"))?;
        let mac = mac.trim();
        run(&format!(
            "ip neigh replace {address} lladdr {mac} dev {on} nud permanent"
        ))?;
    }
    Ok(())
}

fn await_address(device: &str) -> Result<()> {
    let begin = Instant::now();
    while let Err(err) = gid(device) {
        ensure!(begin.elapsed() < PATIENCE, "{err:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn run(lines: &str) -> Result<()> {
    lines.lines().try_for_each(|line| command(line).map(drop))
}

fn command(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("no command")?;
    let output = Command::new(program).args(words).output()?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
