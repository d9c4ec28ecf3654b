use std::io;

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
const EVERYWHERE: &str = "[::]:";

/// Takes `host:port`. `[::]` stands for every address of either family, whatever the machine's defaults; where it has no
/// IPv6, for every address of IPv4.
///
/// # Errors
/// As `TcpListener::bind`.
pub async fn listen(address: &str) -> io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(EVERYWHERE) else { return TcpListener::bind(address).await };
    match both_families(address) {
        Err(error) if lacks_ipv6(&error) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        bound => bound,
    }
}

fn both_families(address: &str) -> io::Result<TcpListener> {
    let address = address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let socket = TcpSocket::new_v6()?;
    set_ipv6_v6only(&socket, false)?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The kernel was built or booted without IPv6, or it is switched off for every interface.
fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| code == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_address_means_those_of_ipv4_too() {
        let listener = listen("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (client, server) = tokio::join!(TcpStream::connect(("127.0.0.1", port)), listener.accept());
        assert_eq!(client.unwrap().local_addr().unwrap().port(), server.unwrap().1.port());
    }

    #[test]
    fn only_a_machine_without_ipv6_is_listened_on_by_ipv4_alone() {
        for (errno, expected) in
            [(Errno::AFNOSUPPORT, true), (Errno::ADDRNOTAVAIL, true), (Errno::ADDRINUSE, false), (Errno::ACCESS, false)]
        {
            assert_eq!(lacks_ipv6(&errno.into()), expected, "{errno}");
        }
    }
}
