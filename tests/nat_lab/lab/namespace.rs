//! Knows nothing of routers: a network namespace, and what is done inside one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// A network namespace without a name.
pub struct Namespace(File);

impl Namespace {
    /// Made on a thread of its own, which ends in it, so that no other thread has to come back.
    pub fn new() -> io::Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // A forged source must pass, and an IPv6 address must be usable at once. Frames that a bridge passes on
            // are none of the router's rules' business; the switches exist only where br_netfilter is loaded.
            for (name, value) in [
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/all/accept_ra", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                ("bridge/bridge-nf-call-iptables", "0"),
                ("bridge/bridge-nf-call-ip6tables", "0"),
            ] {
                match fs::write(format!("/proc/sys/net/{name}"), value) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            current_namespace().map(Self)
        };
        thread::spawn(make).join().expect("it does not panic")
    }

    /// Where `ip` finds it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    pub fn enter<T>(&self, action: impl FnOnce() -> T) -> T {
        let _way_back = WayBack(current_namespace().expect("/proc is mounted"));
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root may enter");
        action()
    }

    pub fn ip(&self, commands: &str) -> Result<(), String> {
        self.run("ip", ["-batch", "-"], commands)
    }

    pub fn nft(&self, rules: &str) -> Result<(), String> {
        self.run("nft", ["-f", "-"], rules)
    }

    fn run(&self, program: &str, arguments: [&str; 2], input: &str) -> Result<(), String> {
        let cannot_run = |error: io::Error| format!("{program} does not run: {error}");
        let mut command = Command::new(program);
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = self.enter(|| command.spawn()).map_err(cannot_run)?;
        // If it ends before it has read all, its message says more than the broken pipe.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().map_err(cannot_run)?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// All connections tracked here are forgotten: `conntrack -F` without the program.
    pub fn flush_conntrack(&self) -> io::Result<()> {
        let netlink: OwnedFd = self.enter(|| {
            let protocol = SockProtocol::NetlinkNetFilter;
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
        })?;
        // struct nlmsghdr: length, type (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE), flags
        // (NLM_F_REQUEST | NLM_F_ACK), sequence, sender. Then an empty struct nfgenmsg: no attributes, so all.
        let mut message = Vec::from(20_u32.to_ne_bytes());
        message.extend(0x0102_u16.to_ne_bytes());
        message.extend(5_u16.to_ne_bytes());
        message.extend([0; 12]);
        send(netlink.as_raw_fd(), &message, MsgFlags::empty())?;
        // The answer is a struct nlmsgerr behind a struct nlmsghdr: 0 or a negated errno.
        let mut answer = [0; 64];
        let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let error = answer[..length].get(16..20).expect("a whole answer").try_into().unwrap();
        match i32::from_ne_bytes(error) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }
}

/// Not `/proc/self`, which shows the main thread's.
fn current_namespace() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// Brings the thread back, also when a test fails inside.
struct WayBack(File);

impl Drop for WayBack {
    fn drop(&mut self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("a thread may go back where it was");
    }
}
