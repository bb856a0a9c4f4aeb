//! Ports for servers of tests.

use std::{net::TcpListener, sync::Mutex};

/// The ports that are given out lie below those that the kernel gives to outgoing connections (32768 and up by default),
/// one of which could otherwise take a port between its choice and its use. A port of the second kind is what
/// `bind("127.0.0.1:0")` gives.
const FIRST: u16 = 20_000;
const BLOCK: u16 = 200;
const BLOCKS: u16 = 60;

/// The blocks of ports of this process. The first port of a block is listened on for as long as the process lives: no other
/// process of this kind takes the block.
struct Given {
    guards: Vec<TcpListener>,
    left: std::ops::Range<u16>,
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).ok()
}

/// All blocks. Processes begin at different ones: what one has left running may still call its ports.
fn blocks() -> impl Iterator<Item = u16> {
    let first = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or_default();
    (first..BLOCKS).chain(0..first)
}

impl Given {
    fn next(&mut self) -> Option<u16> {
        loop {
            if let Some(port) = self.left.by_ref().find(|port| listen(*port).is_some()) {
                return Some(port);
            }
            let (first, guard) =
                blocks().map(|block| FIRST + block * BLOCK).find_map(|first| Some((first, listen(first)?)))?;
            self.guards.push(guard);
            self.left = first + 1..first + BLOCK;
        }
    }
}

/// A port of 127.0.0.1 that nothing listens on and that no other test was given, of this process or another one.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Given> = Mutex::new(Given { guards: Vec::new(), left: 0..0 });
    GIVEN
        .lock()
        .expect("no test panics while it holds this")
        .next()
        .expect("not all ports from 20000 to 31999 are taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_and_none_that_a_connection_may_take() {
        let ports: std::collections::HashSet<u16> = (0..300).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 300);
        assert!(ports.iter().all(|port| (FIRST..32_000).contains(port)), "{ports:?}");
    }

    #[test]
    fn a_port_that_is_in_use_is_passed_over_and_so_is_a_block_of_another_process() {
        let mut mine = Given { guards: Vec::new(), left: 0..0 };
        let first = mine.next().expect("a port");
        let block = mine.guards[0].local_addr().expect("it listens").port();
        mine.left = first..block + BLOCK;
        let _taken = listen(first).expect("it was free");
        assert!(mine.next() > Some(first));
        // As another process would see it.
        let other = Given { guards: Vec::new(), left: 0..0 }.next().expect("a port");
        assert!(!(block..block + BLOCK).contains(&other), "{other} is in the block of {first}");
    }
}
