//! Where the ranks of a gang on this machine are reached by their peers. It must not know gangs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{UdpSocket, lookup_host};
use tonic::transport::Uri;

/// An address of this machine for its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GangAddress {
    /// This one.
    Given(String),
    /// The one from which the coordinator is reached, at the first of these URLs that can be looked up.
    Towards(Vec<String>),
}

impl GangAddress {
    /// The address, as peers are told. Loopback where nothing is known: then no peer on another machine can be reached,
    /// nor could the coordinator be.
    pub(crate) async fn find(&self) -> String {
        match self {
            Self::Given(address) => address.clone(),
            Self::Towards(urls) => {
                for url in urls {
                    if let Some(address) = towards(url).await {
                        return address.to_string();
                    }
                }
                Ipv4Addr::LOCALHOST.to_string()
            }
        }
    }
}

/// The address from which packets to `url` leave. Connecting a UDP socket sends nothing; it only chooses the way.
async fn towards(url: &str) -> Option<IpAddr> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    for peer in lookup_host((host, uri.port_u16().unwrap_or(default_port))).await.ok()? {
        let any = match peer {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(peer).await.is_ok()
            && let Ok(own) = socket.local_addr()
        {
            return Some(own.ip());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_coordinator_on_loopback_is_reached_from_loopback_and_so_are_peers() {
        let towards =
            |urls: &[&str]| GangAddress::Towards(urls.iter().map(|url| (*url).to_owned()).collect());
        assert_eq!(towards(&["http://127.0.0.1:7077"]).find().await, "127.0.0.1");
        assert_eq!(towards(&["not a url", "http://127.0.0.1:1"]).find().await, "127.0.0.1");
        assert_eq!(towards(&[]).find().await, "127.0.0.1");
        assert_eq!(GangAddress::Given("10.1.2.3".to_owned()).find().await, "10.1.2.3");
    }
}
