//! `--http`: where the web page is served, for the commands that have a coordinator inside.

use crate::http::HttpAddress;
use clap::Args;
use std::net::SocketAddr;

/// The option.
#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    /// Where to serve the web page and its API, on loopback; `off` for nowhere [default: 127.0.0.1:7078, or any free port]
    #[arg(long, value_name = "ADDR", value_parser = wanted)]
    http: Option<HttpAddress>,
}

impl HttpArgs {
    /// Where.
    pub(crate) fn address(&self) -> HttpAddress {
        self.http.unwrap_or(HttpAddress::Free { usual: true })
    }
}

fn wanted(text: &str) -> Result<HttpAddress, String> {
    if text == "off" {
        return Ok(HttpAddress::Off);
    }
    address(text).map(HttpAddress::At).map_err(|_| "it looks like 127.0.0.1:7078, or off".to_owned())
}

/// An address as people write it.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("http://").unwrap_or(text).replace("localhost:", "127.0.0.1:");
    text.parse().map_err(|_| "it looks like 127.0.0.1:7077".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_as_people_do() {
        for text in ["127.0.0.1:7077", "http://127.0.0.1:7077", "localhost:7077"] {
            assert_eq!(address(text).unwrap().to_string(), "127.0.0.1:7077");
        }
        assert!(address("7077").is_err());
    }

    #[test]
    fn the_page_can_be_turned_off() {
        assert_eq!(wanted("off"), Ok(HttpAddress::Off));
        assert!(matches!(wanted("localhost:0"), Ok(HttpAddress::At(_))));
        assert!(wanted("on").is_err());
    }
}
