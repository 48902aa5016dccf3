//! Whose program listens at Ollama's port: any user of a computer can take a port that is free, and read the prompts sent there.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Who listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// Nobody on this computer.
    Nobody,
    /// Root, the user `ollama`, or the user of the bridge.
    Trusted,
    /// Somebody else.
    Stranger {
        /// The user's number.
        uid: u32,
    },
}

/// Looks up who listens at `address`, which is one of this computer's.
///
/// # Errors
/// When `/proc/net/tcp` cannot be read.
pub fn find(address: SocketAddr) -> io::Result<Listener> {
    // A kernel without IPv6 has no second table.
    let tables = [fs::read_to_string("/proc/net/tcp")?, fs::read_to_string("/proc/net/tcp6").unwrap_or_default()];
    let Some(uid) = listening(&tables.concat(), address) else { return Ok(Listener::Nobody) };
    // Users that are not in the file, as from a directory service, are not Ollama's: its installer writes the file.
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is_trusted = uid == 0 || uid == rustix::process::geteuid().as_raw() || ollama_user(&users) == Some(uid);
    Ok(if is_trusted { Listener::Trusted } else { Listener::Stranger { uid } })
}

/// The owner of the socket that a connection to `address` reaches: one bound to the address itself comes before one bound to all.
fn listening(table: &str, address: SocketAddr) -> Option<u32> {
    let wanted = match address.ip() {
        IpAddr::V4(ip) => vec![
            IpAddr::V4(ip),
            IpAddr::V6(ip.to_ipv6_mapped()),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
        IpAddr::V6(ip) => vec![IpAddr::V6(ip), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
    };
    let sockets: Vec<_> = table.lines().filter_map(listening_socket).filter(|(at, _)| at.port() == address.port()).collect();
    wanted.iter().find_map(|ip| sockets.iter().find(|(at, _)| at.ip() == *ip)).map(|&(_, uid)| uid)
}

/// One line of `/proc/net/tcp` or `tcp6`, if it is a socket that listens: `sl local_address rem_address st … uid`.
fn listening_socket(line: &str) -> Option<(SocketAddr, u32)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
    let [_, local, _, LISTEN, _, _, _, uid] = fields[..] else { return None };
    let (ip, port) = local.split_once(':')?;
    Some((SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?), uid.parse().ok()?))
}

/// The kernel prints each 32 bits of an address as a number of this processor's byte order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

/// The number of the user `ollama` in `/etc/passwd`.
fn ollama_user(users: &str) -> Option<u32> {
    users.lines().find_map(|line| line.strip_prefix("ollama:")?.split(':').nth(1)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_trusted() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = v4.local_addr().unwrap();
        assert_eq!(find(address).unwrap(), Listener::Trusted);
        drop(v4);
        assert_eq!(find(address).unwrap(), Listener::Nobody);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_socket_that_is_reached_is_the_one_that_counts() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let row = |local: &str, state: &str, uid: u32| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 1 1 0\n")
        };
        // 2CAA is 11434.
        let loopback = row("0100007F:2CAA", "0A", 1001);
        let any = row("00000000:2CAA", "0A", 1002);
        let established = row("0100007F:2CAA", "01", 1003);
        let any6 = row("00000000000000000000000000000000:2CAA", "0A", 1004);
        let loopback6 = row("00000000000000000000000001000000:2CAA", "0A", 1005);
        let other_port = row("0100007F:2CAB", "0A", 1006);
        let v4: SocketAddr = "127.0.0.1:11434".parse().unwrap();
        let v6: SocketAddr = "[::1]:11434".parse().unwrap();
        for (rows, address, uid) in [
            (vec![], v4, None),
            (vec![&established, &other_port], v4, None),
            (vec![&any, &loopback], v4, Some(1001)),
            (vec![&established, &any], v4, Some(1002)),
            (vec![&any6], v4, Some(1004)),
            (vec![&loopback6], v4, None),
            (vec![&any6, &loopback6], v6, Some(1005)),
            (vec![&loopback, &any], v6, None),
        ] {
            let table = rows.into_iter().fold(header.to_owned(), |table, row| table + row);
            assert_eq!(listening(&table, address), uid, "{address}\n{table}");
        }
    }

    #[test]
    fn the_user_of_ollama_is_found_by_name() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\nollama2:x:7:7::/:/bin/false\nollama:x:997:996::/usr/share/ollama:/bin/false\n";
        assert_eq!(ollama_user(users), Some(997));
        assert_eq!(ollama_user("root:x:0:0::/:/bin/sh\n"), None);
    }
}
