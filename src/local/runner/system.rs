//! System calls that no crate wraps safely, for a single-threaded process.

#![expect(unsafe_code, reason = "raw system calls")]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libc::{c_int, c_long, c_uint, c_ulong};
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Pid};

/// `struct mount_attr` of the kernel; the C libraries do not all have it.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const AT_RECURSIVE: c_int = 0x8000;
const OPEN_TREE_CLONE: c_uint = 1;
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The system call's result as a descriptor that is ours.
fn descriptor(result: c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just created this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Adopts a descriptor that this program inherited.
///
/// Must be called once for each number, at the start of the program.
pub(super) fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the program's contract with its parent says that this descriptor is open and ours.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Forks. This program has one thread, so the child may do anything.
pub(super) fn fork() -> io::Result<ForkResult> {
    // SAFETY: the process has a single thread.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Forks a child of our *parent* into new namespaces; `None` in the child, which must call nothing of the C library
/// that looks at the thread id, and soon `exec`: the library's own record of that id is stale in it.
pub(super) fn clone_sibling(namespaces: CloneFlags) -> io::Result<Option<Pid>> {
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut arguments: libc::clone_args = unsafe { zeroed() };
    let flags = namespaces | CloneFlags::CLONE_PARENT;
    arguments.flags = u64::from(flags.bits().cast_unsigned());
    // SAFETY: the arguments outlive the call; without CLONE_VM the child has its own copy of our memory.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    let pid = i32::try_from(check(pid)?).map_err(io::Error::other)?;
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// A detached copy of the mount at `path`; with everything mounted below it if `recursive`.
pub(super) fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let recursive = if recursive { AT_RECURSIVE.cast_unsigned() } else { 0 };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | recursive;
    // SAFETY: the path is a C string that outlives the call.
    descriptor(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

fn mount_setattr(mount: BorrowedFd<'_>, flags: c_int, attributes: &MountAttributes) -> io::Result<()> {
    // SAFETY: the attributes and the empty path outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const *attributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Shows the files of a detached mount with the ids of a user namespace.
pub(super) fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        user_namespace: u64::try_from(user_namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    mount_setattr(mount, 0, &attributes)
}

/// Makes a detached mount, and everything below it, read-only and without set-user-id and devices.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    mount_setattr(mount, AT_RECURSIVE, &attributes)
}

/// Makes a detached mount one without set-user-id and devices.
pub(super) fn forbid_privileges(mount: BorrowedFd<'_>) -> io::Result<()> {
    let set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    mount_setattr(mount, 0, &MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 })
}

/// Attaches a detached mount at `path`.
pub(super) fn attach(mount: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: both paths are C strings that outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Leaves the inherited session keyring, which may hold the server's tickets, for an empty one.
pub(super) fn join_new_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    match check(joined) {
        // a kernel, or a container's filter, without keyrings has none to leave
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        joined => joined.map(drop),
    }
}

/// Filters the system calls of this process and of all that it starts. Needs `CAP_SYS_ADMIN` in its own user namespace,
/// since programs that raise their privileges stay possible.
pub(super) fn filter_system_calls(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    let no_flags: c_uint = 0;
    // SAFETY: the program and its steps outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, no_flags, &raw const program)
    })
    .map(drop)
}

/// Closes every descriptor from `first` on.
pub(super) fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the caller owns none of them any more; the process has a single thread.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) }).map(drop)
}

/// Puts copies of `descriptors` at the numbers 3, 4, … to be inherited, `/dev/null` at 0 to 2, and closes all others.
pub(super) fn place(descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    const CLEAR: RawFd = 100;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    for standard in 0..3 {
        // SAFETY: plain dup2; nobody of this program uses the standard streams.
        check(c_long::from(unsafe { libc::dup2(null.as_raw_fd(), standard) }))?;
    }
    let mut copies = Vec::new();
    for descriptor in descriptors {
        // SAFETY: plain fcntl on a live descriptor; the copy lies above every target.
        copies.push(check(c_long::from(unsafe {
            libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, CLEAR)
        }))?);
    }
    let mut next = 3;
    for copy in copies {
        let copy = RawFd::try_from(copy).map_err(io::Error::other)?;
        // SAFETY: whatever was open at the target is not used again by the caller, who is about to exec.
        check(c_long::from(unsafe { libc::dup2(copy, next) }))?;
        next += 1;
    }
    close_from(next)
}

/// Runs the program behind descriptor `program` instead of this one, which closes that descriptor. Returns only on
/// failure.
pub(super) fn exec_placed(
    program: RawFd,
    arguments: &[&CStr],
    environment: &[CString],
) -> io::Result<Infallible> {
    let mut argv: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    let mut envp: Vec<_> = environment.iter().map(|variable| variable.as_ptr()).collect();
    envp.push(std::ptr::null());
    // SAFETY: plain fcntl.
    unsafe { libc::fcntl(program, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: both vectors are null-terminated arrays of C strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program,
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(io::Error::last_os_error())
}

/// Gives a file exactly this mode, whatever the umask.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// Unblocks every signal and gives each its default meaning, for a program about to be exec'd.
pub(super) fn reset_signals() -> io::Result<()> {
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGHUP, libc::SIGTERM, libc::SIGQUIT] {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(())
}

/// Keeps other processes of the same user from tracing this one and reading its memory.
pub(super) fn forbid_tracing() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Sets an extended attribute.
pub(super) fn set_attribute(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: all pointers describe live values of the given length.
    check(c_long::from(unsafe {
        libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    }))
    .map(drop)
}

/// Has this process killed when its parent (the thread that started it) ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?)
}

/// A socket of the current network namespace through which interfaces are set up.
fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: a plain socket call.
    descriptor(c_long::from(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }))
}

/// A request about the interface `name`, and about nothing else yet.
fn interface_request(name: &CStr) -> libc::ifreq {
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // the last byte stays zero
    let room = request.ifr_name.len() - 1;
    for (target, byte) in request.ifr_name[..room].iter_mut().zip(name.to_bytes()) {
        *target = libc::c_char::from_ne_bytes([*byte]);
    }
    request
}

fn ask_interface(descriptor: BorrowedFd<'_>, what: c_ulong, request: &libc::ifreq) -> io::Result<()> {
    // SAFETY: the request is an initialised ifreq that outlives the call.
    check(c_long::from(unsafe { libc::ioctl(descriptor.as_raw_fd(), what as _, &raw const *request) }))
        .map(drop)
}

fn flags(flags: c_int) -> libc::__c_anonymous_ifr_ifru {
    libc::__c_anonymous_ifr_ifru { ifru_flags: libc::c_short::try_from(flags).unwrap_or_default() }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let [first, second, third, fourth] = address.octets();
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut socket: libc::sockaddr = unsafe { zeroed() };
    socket.sa_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    // as in `sockaddr_in`: two bytes of port, then the address
    for (target, byte) in socket.sa_data[2..6].iter_mut().zip([first, second, third, fourth]) {
        *target = libc::c_char::from_ne_bytes([byte]);
    }
    socket
}

/// Switches an interface of the current network namespace on.
pub(super) fn interface_up(name: &CStr) -> io::Result<()> {
    let mut request = interface_request(name);
    request.ifr_ifru = flags(libc::IFF_UP | libc::IFF_RUNNING);
    ask_interface(control_socket()?.as_fd(), libc::SIOCSIFFLAGS as _, &request)
}

/// Makes an interface whose packets are read from and written to the descriptor; it is gone when that is closed.
pub(super) fn tunnel(name: &CStr) -> io::Result<OwnedFd> {
    const TUNSETIFF: c_ulong = 0x4004_54ca;
    let device = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request = interface_request(name);
    request.ifr_ifru = flags(libc::IFF_TUN | libc::IFF_NO_PI);
    ask_interface(device.as_fd(), TUNSETIFF, &request)?;
    Ok(device.into())
}

/// Gives an interface of the current network namespace its address and the size of its packets.
pub(super) fn address_interface(name: &CStr, address: Ipv4Addr, mask: Ipv4Addr, mtu: u16) -> io::Result<()> {
    let socket = control_socket()?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_mtu = c_int::from(mtu);
    ask_interface(socket.as_fd(), libc::SIOCSIFMTU as _, &request)?;
    request.ifr_ifru.ifru_addr = socket_address(address);
    ask_interface(socket.as_fd(), libc::SIOCSIFADDR as _, &request)?;
    request.ifr_ifru.ifru_netmask = socket_address(mask);
    ask_interface(socket.as_fd(), libc::SIOCSIFNETMASK as _, &request)
}

/// Sends everything that no other route knows to `gateway`.
pub(super) fn default_route(gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut route: libc::rtentry = unsafe { zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    let socket = control_socket()?;
    // SAFETY: the route is initialised and outlives the call.
    check(c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &raw const route) }))
        .map(drop)
}

/// Takes the three ids, real, effective and saved, for this process.
pub(super) fn become_user(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        // SAFETY: the pointer and the length describe one live slice.
        check(c_long::from(unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) }))?;
    }
    // SAFETY: plain calls without pointers.
    check(c_long::from(unsafe { libc::setresgid(gid, gid, gid) }))?;
    // SAFETY: as above.
    check(c_long::from(unsafe { libc::setresuid(uid, uid, uid) })).map(drop)
}

/// Allows this process as many open files as its hard limit does.
pub(super) fn raise_open_files() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct outlives the call.
    check(c_long::from(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }))?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    check(c_long::from(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })).map(drop)
}

/// Ends the process without unwinding and without exit handlers.
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: never returns, touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Forks and ends the parent; `false` if that is impossible. For a program of one thread.
pub(super) fn go_to_background() -> bool {
    match fork() {
        Ok(ForkResult::Child) => true,
        Ok(ForkResult::Parent { .. }) => exit_now(0),
        Err(_) => false,
    }
}
