//! A MySQL client of a few lines, for what no well-behaved client does: broken packets, silence.

use anyhow::{Result, ensure};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const PROTOCOL_41_SECURE_WITH_DB: u32 = 0x200 | 0x8000 | 0x8;

pub struct Raw(pub TcpStream);

impl Raw {
    /// Connects and reads the greeting.
    pub fn greeted(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut raw = Self(stream);
        let greeting = raw.read_packet()?;
        ensure!(greeting.first() == Some(&10), "not a greeting: {greeting:?}");
        Ok(raw)
    }

    /// Connects and authenticates where any user may.
    pub fn connected(port: u16, database: &str) -> Result<Self> {
        let mut raw = Self::greeted(port)?;
        let mut packet = Vec::new();
        packet.extend(PROTOCOL_41_SECURE_WITH_DB.to_le_bytes());
        packet.extend((1u32 << 24).to_le_bytes());
        packet.push(45);
        packet.extend([0; 23]);
        packet.extend(b"any\0\0");
        packet.extend(database.as_bytes());
        packet.push(0);
        raw.write_packet(1, &packet)?;
        let answer = raw.read_packet()?;
        ensure!(answer.first() == Some(&0), "refused: {}", String::from_utf8_lossy(&answer));
        Ok(raw)
    }

    pub fn write_packet(&mut self, sequence: u8, payload: &[u8]) -> Result<()> {
        let mut packet = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        packet.push(sequence);
        packet.extend(payload);
        Ok(self.0.write_all(&packet)?)
    }

    pub fn read_packet(&mut self) -> Result<Vec<u8>> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header)?;
        let mut payload = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
        self.0.read_exact(&mut payload)?;
        Ok(payload)
    }

    pub fn send_query(&mut self, sql: &str) -> Result<()> {
        self.write_packet(0, &[b"\x03", sql.as_bytes()].concat())
    }

    /// Whether the server ends the connection, perhaps after a last packet.
    pub fn is_closed_by_server(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match self.0.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}
