//! The greeting of a client: capabilities, TLS, login.
//!
//! The greeting offers `mysql_native_password`; a client may answer with that or with `caching_sha2_password`, and is
//! asked to switch to the former when it begins with anything else. A client that has only the password's hash to
//! check against (`MysqlNativePassword`) shows the password itself once: over TLS, the unix socket, or RSA.

use std::collections::BTreeMap;

use rand::Rng;
use vterrors::MysqlError;

use super::auth::{Proof, Verdict};
use super::writer::Output;
use super::{ConnectionInfo, Identity, ServerConfig};
use crate::constants::{auth_plugin, capability, charset, errno, status};
use crate::packet::{Cursor, PacketError, PacketReader, PacketWriter, WireError};
use crate::scramble::SALT_LEN;
use crate::stream::{Prefixed, ReadHalf, Socket, reunite, split_tls};
use crate::wire;

/// Largest packet before login: room for 64 KB of connect attributes.
const MAX_LOGIN_PACKET: usize = 128 << 10;

const OFFERED: u32 = capability::LONG_PASSWORD
    | capability::FOUND_ROWS
    | capability::LONG_FLAG
    | capability::CONNECT_WITH_DB
    | capability::IGNORE_SPACE
    | capability::PROTOCOL_41
    | capability::INTERACTIVE
    | capability::TRANSACTIONS
    | capability::SECURE_CONNECTION
    | capability::MULTI_STATEMENTS
    | capability::MULTI_RESULTS
    | capability::PS_MULTI_RESULTS
    | capability::PLUGIN_AUTH
    | capability::CONNECT_ATTRS
    | capability::PLUGIN_AUTH_LENENC
    | capability::DEPRECATE_EOF;

/// A connection that is logged in.
pub(super) struct LoggedIn {
    pub reader: PacketReader<ReadHalf>,
    pub output: Output,
    pub info: ConnectionInfo,
    pub salt: [u8; SALT_LEN],
}

/// Why a login came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    /// Told to the client.
    #[error(transparent)]
    Refused(#[from] MysqlError),
    /// The stream is no MySQL client's, or gone: there is nobody to tell.
    #[error("handshake: {0}")]
    Packet(#[from] PacketError),
    #[error("handshake: {0}")]
    Io(#[from] std::io::Error),
    /// Opened and closed without a word, as port checks do.
    #[error("closed")]
    Silent,
}

impl From<WireError> for LoginError {
    fn from(_: WireError) -> Self {
        Self::Refused(MysqlError::new(errno::HANDSHAKE, "08S01", "Bad handshake"))
    }
}

/// A client's answer to the greeting, or its wish to change user.
#[derive(Debug, Default)]
pub(super) struct Response {
    capabilities: u32,
    charset: u8,
    user: String,
    reply: Vec<u8>,
    db_name: String,
    plugin: String,
    attributes: BTreeMap<String, String>,
}

/// Salt without NUL, which ends it on the wire, and without `$`, which separates fields in some stored hashes.
pub(super) fn new_salt() -> [u8; SALT_LEN] {
    let mut salt = [0; SALT_LEN];
    let mut rng = rand::rng();
    for byte in &mut salt {
        *byte = match rng.random_range(1..127) {
            b'$' => 127,
            other => other,
        };
    }
    salt
}

fn put_greeting(out: &mut Vec<u8>, version: &str, id: u32, salt: &[u8; SALT_LEN], offered: u32) {
    out.push(10);
    out.extend_from_slice(version.as_bytes());
    out.push(0);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&salt[..8]);
    out.push(0);
    out.extend_from_slice(&offered.to_le_bytes()[..2]);
    out.push(charset::UTF8_GENERAL_CI);
    out.extend_from_slice(&status::AUTOCOMMIT.to_le_bytes());
    out.extend_from_slice(&offered.to_le_bytes()[2..]);
    out.push(SALT_LEN as u8 + 1);
    out.extend_from_slice(&[0; 10]);
    out.extend_from_slice(&salt[8..]);
    out.push(0);
    out.extend_from_slice(auth_plugin::NATIVE.as_bytes());
    out.push(0);
}

/// Text that a NUL ends, or the packet does: some clients leave the last NUL out.
fn nul_or_rest<'a>(cursor: &mut Cursor<'a>) -> &'a [u8] {
    let mut ahead = cursor.clone();
    match ahead.nul_bytes() {
        Ok(text) => {
            *cursor = ahead;
            text
        }
        Err(_) => cursor.rest(),
    }
}

fn text(bytes: &[u8]) -> Result<String, WireError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::NotUtf8)
}

/// Attributes are for people: whatever is not readable is left out.
fn parse_attributes(cursor: &mut Cursor<'_>) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let Ok(block) = cursor.lenenc_bytes() else { return attributes };
    let mut cursor = Cursor::new(block);
    while let (Ok(key), Ok(value)) = (cursor.lenenc_str(), cursor.lenenc_str()) {
        attributes.insert(key.to_owned(), value.to_owned());
    }
    attributes
}

/// The part up to the user name: capabilities and character set.
fn parse_head(cursor: &mut Cursor<'_>, offered: u32) -> Result<(u32, u8), WireError> {
    let capabilities = cursor.u32()?;
    cursor.u32()?;
    let charset = cursor.u8()?;
    cursor.bytes(23)?;
    Ok((capabilities & offered, charset))
}

fn parse_response(packet: &[u8], offered: u32) -> Result<Response, WireError> {
    let mut cursor = Cursor::new(packet);
    let (capabilities, charset) = parse_head(&mut cursor, offered)?;
    let has = |bit: u32| capabilities & bit != 0;
    let user = text(cursor.nul_bytes()?)?;
    let reply = if has(capability::PLUGIN_AUTH_LENENC) {
        cursor.lenenc_bytes()?
    } else if has(capability::SECURE_CONNECTION) {
        let len = cursor.u8()?;
        cursor.bytes(len.into())?
    } else {
        cursor.nul_bytes()?
    };
    let reply = reply.to_vec();
    let db_name = if has(capability::CONNECT_WITH_DB) { text(nul_or_rest(&mut cursor))? } else { String::new() };
    let plugin = if has(capability::PLUGIN_AUTH) { text(nul_or_rest(&mut cursor))? } else { String::new() };
    let attributes = if has(capability::CONNECT_ATTRS) { parse_attributes(&mut cursor) } else { BTreeMap::new() };
    Ok(Response { capabilities, charset, user, reply, db_name, plugin, attributes })
}

/// COM_CHANGE_USER, without its command byte.
pub(super) fn parse_change_user(packet: &[u8], capabilities: u32) -> Result<Response, WireError> {
    let has = |bit: u32| capabilities & bit != 0;
    let mut cursor = Cursor::new(packet);
    let user = text(cursor.nul_bytes()?)?;
    let len = cursor.u8()?;
    let reply = cursor.bytes(len.into())?.to_vec();
    let db_name = text(nul_or_rest(&mut cursor))?;
    let mut response = Response { capabilities, user, reply, db_name, ..Response::default() };
    response.charset = charset::UTF8_GENERAL_CI;
    if !cursor.is_empty() {
        // Collation ids above 255 exist; the ones clients log in with are below.
        response.charset = u8::try_from(cursor.u16()?).unwrap_or(charset::UTF8MB4_GENERAL_CI);
    }
    if !cursor.is_empty() && has(capability::PLUGIN_AUTH) {
        response.plugin = text(nul_or_rest(&mut cursor))?;
    }
    if !cursor.is_empty() && has(capability::CONNECT_ATTRS) {
        response.attributes = parse_attributes(&mut cursor);
    }
    Ok(response)
}

/// Greets a client and logs it in. The caller bounds the time.
pub(super) async fn login(
    socket: Socket,
    peer: String,
    id: u32,
    config: &ServerConfig,
) -> Result<LoggedIn, (LoginError, Option<Output>)> {
    let unix_socket = matches!(socket, Socket::Unix(_));
    let (read, write) = socket.split();
    let mut reader = PacketReader::new(read, MAX_LOGIN_PACKET);
    let mut output =
        Output { packets: PacketWriter::new(write), capabilities: 0, write_timeout: None, status: status::AUTOCOMMIT };
    let salt = new_salt();
    let offered = if config.tls.is_some() { OFFERED | capability::SSL } else { OFFERED };
    let mut tls = false;
    // An error is sent over whatever stream there is at that time, so the parts are handed back with it.
    macro_rules! check {
        ($result:expr) => {
            match $result {
                Ok(value) => value,
                Err(error) => return Err((LoginError::from(error), Some(output))),
            }
        };
    }
    put_greeting(output.packets.begin(), &config.server_version, id, &salt, offered);
    output.packets.end();
    check!(output.flush().await);
    reader.set_seq(output.packets.seq());
    let span = match reader.next().await {
        Ok(span) => span,
        Err(PacketError::Closed) => return Err((LoginError::Silent, None)),
        Err(error) => return Err((error.into(), None)),
    };
    output.packets.set_seq(reader.seq());
    let mut cursor = Cursor::new(reader.get(span));
    let (capabilities, _) = check!(parse_head(&mut cursor, offered));
    if capabilities & capability::PROTOCOL_41 == 0 {
        let error = MysqlError::new(errno::HANDSHAKE, "08S01", "Bad handshake: only protocol 4.1 is supported");
        return Err((error.into(), Some(output)));
    }
    let mut response = None;
    if let (true, Some(tls_config)) = (capabilities & capability::SSL != 0 && cursor.is_empty(), &config.tls) {
        let seq = reader.seq();
        let (read, rest) = reader.into_parts();
        let accepted = async {
            let socket = reunite(read, output.packets.into_inner())?;
            tokio_rustls::TlsAcceptor::from(tls_config.clone()).accept(Prefixed::new(rest, socket)).await
        };
        let stream = match accepted.await {
            Ok(stream) => stream,
            Err(error) => return Err((error.into(), None)),
        };
        let (read, write) = split_tls(stream.into());
        reader = PacketReader::new(read, MAX_LOGIN_PACKET);
        output = Output {
            packets: PacketWriter::new(write),
            capabilities: 0,
            write_timeout: None,
            status: status::AUTOCOMMIT,
        };
        tls = true;
        reader.set_seq(seq);
        let span = check!(reader.next().await);
        output.packets.set_seq(reader.seq());
        let parsed = parse_response(reader.get(span), offered);
        response = Some(check!(parsed));
    }
    let response = match response {
        Some(response) => response,
        None => check!(parse_response(reader.get(span), offered)),
    };
    if config.require_secure_transport && !tls && !unix_socket {
        let text = "server does not allow insecure connections, client must use SSL/TLS";
        let error = MysqlError::new(errno::SECURE_TRANSPORT_REQUIRED, "HY000", text);
        return Err((error.into(), Some(output)));
    }
    let salt_copy = salt;
    let identity =
        check!(authenticate(&mut reader, &mut output, config, &response, &salt_copy, tls, unix_socket).await);
    reader.set_max_packet(config.max_allowed_packet);
    output.capabilities = response.capabilities;
    output.write_timeout = config.write_timeout;
    let info = info_of(response, identity, id, peer, tls);
    Ok(LoggedIn { reader, output, info, salt })
}

pub(super) fn info_of(response: Response, identity: Identity, id: u32, peer: String, tls: bool) -> ConnectionInfo {
    ConnectionInfo {
        id,
        user: response.user,
        identity,
        peer,
        db_name: response.db_name,
        capabilities: response.capabilities,
        charset: response.charset,
        attributes: response.attributes,
        tls,
    }
}

fn denied(user: &str) -> MysqlError {
    MysqlError::new(errno::ACCESS_DENIED, "28000", format!("Access denied for user '{user}'"))
}

/// Sends a packet and reads the answer.
async fn exchange(
    reader: &mut PacketReader<ReadHalf>,
    output: &mut Output,
    packet: &[u8],
) -> Result<Vec<u8>, LoginError> {
    output.packets.packet(packet);
    output.flush().await?;
    reader.set_seq(output.packets.seq());
    let span = reader.next().await?;
    output.packets.set_seq(reader.seq());
    Ok(reader.take(span))
}

/// Checks who the client is, with as many round trips as its method takes.
pub(super) async fn authenticate(
    reader: &mut PacketReader<ReadHalf>,
    output: &mut Output,
    config: &ServerConfig,
    response: &Response,
    salt: &[u8; SALT_LEN],
    tls: bool,
    unix_socket: bool,
) -> Result<Identity, LoginError> {
    let auth = &config.auth;
    let user = response.user.as_str();
    let mut plugin = response.plugin.as_str();
    if plugin.is_empty() {
        plugin = auth_plugin::NATIVE;
    }
    let mut reply = response.reply.clone();
    let mut salt = *salt;
    let complete = match plugin {
        auth_plugin::NATIVE => matches!(reply.len(), 0 | 20),
        // A client that prefers this method to the one in the greeting does not trust the salt there: it sends
        // nothing yet and waits for one of its own.
        auth_plugin::CACHING_SHA2 => reply.len() == 32,
        _ => false,
    };
    if !complete {
        plugin = if plugin == auth_plugin::CACHING_SHA2 { plugin } else { auth_plugin::NATIVE };
        salt = new_salt();
        reply = exchange(reader, output, &switch_request(plugin, &salt)).await?;
    }
    if plugin == auth_plugin::NATIVE {
        return match auth.verify(user, unix_socket, Proof::Native { reply: &reply, salt: &salt }) {
            Verdict::Accept(identity) => Ok(identity),
            Verdict::Deny | Verdict::NeedClear => Err(denied(user).into()),
        };
    }
    if reply == [0] {
        // How this method says "no password".
        reply.clear();
    }
    match auth.verify(user, unix_socket, Proof::Sha2 { reply: &reply, salt: &salt }) {
        Verdict::Accept(identity) => {
            if !reply.is_empty() {
                // The client waits for "fast login succeeded" before the OK.
                output.packets.packet(&[1, 3]);
            }
            Ok(identity)
        }
        Verdict::Deny => Err(denied(user).into()),
        Verdict::NeedClear => {
            let password = clear_password(reader, output, config, &salt, tls || unix_socket).await?;
            let password = password.ok_or_else(|| denied(user))?;
            match auth.verify(user, unix_socket, Proof::Clear(&password)) {
                Verdict::Accept(identity) => Ok(identity),
                Verdict::Deny | Verdict::NeedClear => Err(denied(user).into()),
            }
        }
    }
}

fn switch_request(plugin: &str, salt: &[u8; SALT_LEN]) -> Vec<u8> {
    let mut packet = vec![wire::EOF];
    packet.extend_from_slice(plugin.as_bytes());
    packet.push(0);
    packet.extend_from_slice(salt);
    packet.push(0);
    packet
}

/// The full login of `caching_sha2_password`.
async fn clear_password(
    reader: &mut PacketReader<ReadHalf>,
    output: &mut Output,
    config: &ServerConfig,
    salt: &[u8; SALT_LEN],
    protected: bool,
) -> Result<Option<Vec<u8>>, LoginError> {
    let mut answer = exchange(reader, output, &[1, 4]).await?;
    if protected {
        return Ok((answer.pop() == Some(0)).then_some(answer));
    }
    // Making the key is work for a thread of its own.
    let auth = config.auth.clone();
    let pem = tokio::task::spawn_blocking(move || auth.rsa_key().map(|key| key.public_pem.clone())).await;
    let Ok(Some(pem)) = pem else { return Ok(None) };
    if answer == [2] {
        let mut packet = vec![1];
        packet.extend_from_slice(pem.as_bytes());
        answer = exchange(reader, output, &packet).await?;
    }
    let auth = config.auth.clone();
    let salt = *salt;
    let decrypted =
        tokio::task::spawn_blocking(move || auth.rsa_key().and_then(|key| key.password(&answer, &salt))).await;
    Ok(decrypted.ok().flatten())
}

/// Refuses a connection before the greeting. Clients expect no SQLSTATE there.
pub(super) async fn refuse(socket: Socket, number: u16, message: &str) {
    let (_read, write) = socket.split();
    let mut packets = PacketWriter::new(write);
    let packet = packets.begin();
    packet.push(wire::ERR);
    packet.extend_from_slice(&number.to_le_bytes());
    packet.extend_from_slice(message.as_bytes());
    packets.end();
    // Nobody is waiting for how this goes.
    let _ = packets.flush().await;
    let _ = packets.shutdown().await;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the mariadb command-line client sends for `-u user -ppass db`.
    fn response(capabilities: u32) -> Vec<u8> {
        let mut packet = capabilities.to_le_bytes().to_vec();
        packet.extend_from_slice(&(16_u32 << 20).to_le_bytes());
        packet.push(45);
        packet.extend_from_slice(&[0; 23]);
        packet.extend_from_slice(
            b"user\0\x14aaaaaaaaaabbbbbbbbbbdb\0mysql_native_password\0\x0e\x03_os\x05Linux\x02pi\x01",
        );
        packet.push(b'7');
        packet
    }

    #[test]
    fn a_response_in_full() {
        let parsed = parse_response(&response(u32::MAX), OFFERED).expect("a response");
        assert_eq!((parsed.user.as_str(), parsed.db_name.as_str(), parsed.charset), ("user", "db", 45));
        assert_eq!(parsed.reply, b"aaaaaaaaaabbbbbbbbbb");
        assert_eq!(parsed.plugin, "mysql_native_password");
        assert_eq!(parsed.attributes["_os"], "Linux");
        assert_eq!(parsed.capabilities, OFFERED, "nothing that was not offered");
    }

    #[test]
    fn a_change_of_user() {
        let packet = b"bob\0\x00db2\0\x2d\x00caching_sha2_password\0";
        let parsed = parse_change_user(packet, OFFERED).expect("a response");
        assert_eq!((parsed.user.as_str(), parsed.db_name.as_str()), ("bob", "db2"));
        assert_eq!((parsed.charset, parsed.plugin.as_str()), (45, "caching_sha2_password"));
    }

    #[test]
    fn salt_is_printable_for_every_client() {
        for _ in 0..200 {
            assert!(new_salt().iter().all(|&byte| byte != 0 && byte != b'$' && byte < 128));
        }
        assert_ne!(new_salt(), new_salt());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, capabilities: u32) {
            let _ = parse_response(&bytes, OFFERED);
            let _ = parse_change_user(&bytes, capabilities);
            let mut packet = response(capabilities);
            packet.truncate(bytes.len());
            let _ = parse_response(&packet, OFFERED);
        }
    }
}
