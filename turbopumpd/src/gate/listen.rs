//! Where clients come in: TCP and unix sockets, bound with the care that a daemon needs.
//!
//! - TCP: address reuse (restart at once), no delay (set on the listener, inherited by what it
//!   accepts), a deep backlog.
//! - unix: it is the owner's alone unless told otherwise; the file that a killed daemon left is replaced; a live socket or any other file is
//!   refused; on drop the file is removed, if it is still ours.

use std::{
    fmt,
    fs::Permissions,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, ToSocketAddrs},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use mio::{Interest, Registry, Token};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where to listen: what follows `--local-addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAt {
    /// `HOST:PORT`, or `:PORT` for the loopback address.
    Tcp(String, u16),
    /// A path.
    Unix(PathBuf),
}

impl FromStr for ListenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an address is HOST:PORT, :PORT or a path".into());
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !text.contains('/') => {
                let port = port.parse().map_err(|_| format!("{port:?} is not a port from 0 to 65535"))?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Ok(Self::Tcp(if host.is_empty() { "localhost".into() } else { host.into() }, port))
            }
            _ => Ok(Self::Unix(text.into())),
        }
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Which kind of socket a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// TCP: any user of any machine that reaches the address.
    Tcp,
    /// A unix socket: whoever the file system lets in.
    Unix,
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: ListenerSocket,
    name: String,
}

#[derive(Debug)]
enum ListenerSocket {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener, #[allow(dead_code, reason = "removes the file when dropped")] OwnedPath),
}

/// A socket file, and which one it was when it was made.
#[derive(Debug)]
struct OwnedPath {
    path: PathBuf,
    inode: (u64, u64),
}

impl Listener {
    /// Binds. A unix socket gets this mode.
    ///
    /// # Errors
    /// The address is in use, can't be resolved, or names a file that is no socket.
    pub fn bind(at: &ListenAt, socket_mode: u32) -> io::Result<Self> {
        match at {
            ListenAt::Tcp(host, port) => bind_tcp(host, *port),
            ListenAt::Unix(path) => bind_unix(path, socket_mode),
        }
    }

    /// How a client would name it: `http://127.0.0.1:1592` or `unix:/path`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether other machines can reach it.
    ///
    /// # Errors
    /// The system can't tell where it is bound.
    pub fn is_remote(&self) -> io::Result<bool> {
        match &self.socket {
            ListenerSocket::Tcp(l) => Ok(!l.local_addr()?.ip().is_loopback()),
            ListenerSocket::Unix(..) => Ok(false),
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            ListenerSocket::Tcp(l) => registry.register(l, token, Interest::READABLE),
            ListenerSocket::Unix(l, _) => registry.register(l, token, Interest::READABLE),
        }
    }

    pub(super) fn accept(&self) -> io::Result<(Stream, Origin)> {
        match &self.socket {
            ListenerSocket::Tcp(l) => {
                let (stream, _) = l.accept()?;
                #[cfg(not(target_os = "linux"))]
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Origin::Tcp))
            }
            ListenerSocket::Unix(l, _) => Ok((Stream::Unix(l.accept()?.0), Origin::Unix)),
        }
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind_tcp(host: &str, port: u16) -> io::Result<Listener> {
    let mut addrs: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addrs.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for addr in addrs {
        match bind_addr(addr) {
            Ok(listener) => return Ok(listener),
            Err(e) => failure = e,
        }
    }
    Err(failure)
}

fn bind_addr(addr: SocketAddr) -> io::Result<Listener> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let listener = mio::net::TcpListener::from_std(socket.into());
    let name = format!("http://{}", listener.local_addr()?);
    Ok(Listener { socket: ListenerSocket::Tcp(listener), name })
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"));
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    // Before it listens nobody can connect.
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let metadata = std::fs::symlink_metadata(path)?;
    let owned = OwnedPath { path: path.into(), inode: (metadata.dev(), metadata.ino()) };
    let listener = mio::net::UnixListener::from_std(socket.into());
    let name = format!("unix:{}", path.display());
    Ok(Listener { socket: ListenerSocket::Unix(listener, owned), name })
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Stream {
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(s) => registry.register(s, token, Interest::READABLE),
            Self::Unix(s) => registry.register(s, token, Interest::READABLE),
        }
    }

    pub(super) fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(s) => registry.reregister(s, token, interest),
            Self::Unix(s) => registry.reregister(s, token, interest),
        }
    }

    pub(super) fn shutdown_write(&self) {
        let _ = match self {
            Self::Tcp(s) => s.shutdown(Shutdown::Write),
            Self::Unix(s) => s.shutdown(Shutdown::Write),
        };
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(bytes),
            Self::Unix(s) => s.write(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_port_a_port_or_a_path() {
        let tcp = |h: &str, p| Ok(ListenAt::Tcp(h.into(), p));
        assert_eq!("localhost:1592".parse(), tcp("localhost", 1592));
        assert_eq!(":80".parse(), tcp("localhost", 80));
        assert_eq!("[::1]:80".parse(), tcp("::1", 80));
        assert_eq!("/tmp/a:1".parse(), Ok(ListenAt::Unix("/tmp/a:1".into())));
        assert_eq!("sock".parse(), Ok(ListenAt::Unix("sock".into())));
        assert!("host:99999".parse::<ListenAt>().is_err());
        assert!("".parse::<ListenAt>().is_err());
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_or_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind, as a killed daemon does");
        let listener = Listener::bind(&ListenAt::Unix(path.clone()), 0o600).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Listener::bind(&ListenAt::Unix(path.clone()), 0o600).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists(), "the file goes with the listener");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&ListenAt::Unix(path.clone()), 0o600).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
