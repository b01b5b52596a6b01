//! The relay: connections, groups, and the event loop. Must never block on a single socket, and never change the order of a receiver's bytes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;

use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::frames;
use crate::greeting;
use crate::poll::Poll;

/// The default size of a burst, the most bytes of one read. It fits in the processor's smaller caches. A larger burst reduces the cost per message.
pub const BURST: usize = 64 * 1024;

/// The listen backlog. A load generator opens thousands of connections at once.
const ACCEPT_QUEUE: i32 = 4096;

/// The token of the listener. The token of a connection is its key in the slab.
const LISTENER: u64 = u64::MAX;

/// The group of a connection before its upgrade.
const NO_GROUP: u32 = u32::MAX;

/// Whether a connection stays open.
type Alive = bool;

/// A relay with all its connections.
pub struct Relay {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    groups: Slab<Group>,
    names: HashMap<Arc<str>, u32>,
    /// The read buffer of all connections. It has no data between two reads.
    burst: Box<[u8]>,
    /// A reusable buffer for messages that are longer than a burst.
    spare: Vec<u8>,
}

/// An idle connection needs this memory and an entry in its group's list.
struct Connection {
    stream: TcpStream,
    group: u32,
    /// The index in the group's list.
    position: u32,
    input: Option<Box<Unfinished>>,
    /// Bytes that the socket has not accepted yet.
    output: Option<Box<Output>>,
}

/// An incomplete frame or request.
struct Unfinished {
    /// The bytes received so far. For a message longer than a burst, the length is that of the whole message.
    bytes: Vec<u8>,
    /// The number of bytes received so far.
    filled: usize,
}

struct Output {
    bytes: Vec<u8>,
    /// The number of bytes that were written.
    sent: usize,
}

struct Group {
    name: Arc<str>,
    members: Vec<u32>,
}

impl Relay {
    /// Creates a relay that listens on `address` and reads bursts of `burst` bytes.
    ///
    /// # Errors
    /// The address is invalid or in use.
    pub fn bind(address: &str, burst: usize) -> io::Result<Self> {
        let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_QUEUE)?;
        socket.set_nonblocking(true)?;
        let (poll, listener) = (Poll::new()?, TcpListener::from(socket));
        poll.add(&listener, LISTENER)?;
        Ok(Self {
            poll,
            listener,
            connections: Slab::new(),
            groups: Slab::new(),
            names: HashMap::new(),
            burst: vec![0; burst.max(greeting::HEAD * 2)].into_boxed_slice(),
            spare: Vec::new(),
        })
    }

    /// Returns the address of the listener.
    ///
    /// # Errors
    /// The error of `getsockname`.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for events and handles them.
    ///
    /// # Errors
    /// The wait failed.
    pub fn handle_events(&mut self) -> io::Result<()> {
        for index in 0..self.poll.wait()? {
            let event = self.poll.event(index);
            if event.token == LISTENER {
                self.accept();
                continue;
            }
            // Each connection has at most one event per wait, and only its own event ends a connection, so the connection exists.
            let Ok(id) = usize::try_from(event.token) else { continue };
            let alive = (!event.writable || self.drain(id)) && (!event.readable || self.read(id).unwrap_or(false));
            if !alive {
                self.end(id);
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let entry = self.connections.vacant_entry();
            let watched = stream
                .set_nonblocking(true)
                .and_then(|()| stream.set_nodelay(true))
                .and_then(|()| self.poll.add(&stream, entry.key() as u64));
            if watched.is_ok() {
                entry.insert(Connection { stream, group: NO_GROUP, position: 0, input: None, output: None });
            }
        }
    }

    /// Removes a connection from the slab and from its group, and closes it.
    fn end(&mut self, id: usize) {
        let connection = self.connections.remove(id);
        let Some(group) = self.groups.get_mut(connection.group as usize) else { return };
        group.members.swap_remove(connection.position as usize);
        if let Some(moved) = group.members.get(connection.position as usize) {
            self.connections[*moved as usize].position = connection.position;
        }
        if group.members.is_empty() {
            self.names.remove(&group.name);
            self.groups.remove(connection.group as usize);
        }
    }

    /// Reads once and handles the bytes.
    fn read(&mut self, id: usize) -> io::Result<Alive> {
        let connection = &mut self.connections[id];
        let carried = match connection.input.take() {
            Some(input) if input.bytes.len() > self.burst.len() => return self.read_long(id, input),
            Some(input) => {
                self.burst[..input.filled].copy_from_slice(&input.bytes);
                input.filled
            }
            None => 0,
        };
        let read = match connection.stream.read(&mut self.burst[carried..]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if is_transient(&error) => 0,
            Err(error) => return Err(error),
        };
        let length = carried + read;
        if connection.group == NO_GROUP { self.upgrade(id, length) } else { self.relay(id, 0..length) }
    }

    /// Answers the request in the first `length` bytes of the burst, if the request is complete.
    fn upgrade(&mut self, id: usize, length: usize) -> io::Result<Alive> {
        let request = match greeting::parse(&self.burst[..length]) {
            Ok(Some(request)) => request,
            Ok(None) => {
                self.keep(id, 0..length, length);
                return Ok(true);
            }
            Err(()) => {
                let _ = self.connections[id].stream.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
                return Ok(false);
            }
        };
        let name: Arc<str> = request.target.into();
        let group = *self.names.entry(Arc::clone(&name)).or_insert_with(|| {
            let group = self.groups.insert(Group { name, members: Vec::new() });
            u32::try_from(group).unwrap_or(NO_GROUP)
        });
        let members = &mut self.groups[group as usize].members;
        let connection = &mut self.connections[id];
        connection.group = group;
        connection.position = u32::try_from(members.len()).unwrap_or(u32::MAX);
        members.push(u32::try_from(id).unwrap_or(u32::MAX));
        send(&self.poll, connection, id, request.reply.as_bytes());
        self.relay(id, request.length..length)
    }

    /// Forwards the complete frames in this part of the burst, and keeps an incomplete frame.
    fn relay(&mut self, id: usize, part: std::ops::Range<usize>) -> io::Result<Alive> {
        let found = frames::convert(&mut self.burst[part.clone()]);
        if found.ready > 0 {
            let bytes = &self.burst[part.start..part.start + found.ready];
            forward(&self.poll, &mut self.connections, &self.groups, id, bytes);
        }
        if !found.answer.is_empty() {
            send(&self.poll, &mut self.connections[id], id, &found.answer);
        }
        if found.end.is_some() {
            return Ok(false);
        }
        let rest = part.start + found.consumed..part.end;
        if !rest.is_empty() {
            self.keep(id, rest, found.needed);
        }
        Ok(true)
    }

    /// Keeps the start of a frame or request with a total length of `needed` bytes; 0 = unknown.
    fn keep(&mut self, id: usize, rest: std::ops::Range<usize>, needed: usize) {
        let (rest, filled) = (&self.burst[rest.clone()], rest.len());
        let bytes = if needed > self.burst.len() {
            let mut bytes = std::mem::take(&mut self.spare);
            bytes.resize(needed, 0);
            bytes[..filled].copy_from_slice(rest);
            bytes
        } else {
            rest.to_vec()
        };
        self.connections[id].input = Some(Box::new(Unfinished { bytes, filled }));
    }

    /// Continues to read a message that is longer than a burst into its own buffer, and forwards the message when it is complete.
    fn read_long(&mut self, id: usize, mut input: Box<Unfinished>) -> io::Result<Alive> {
        let connection = &mut self.connections[id];
        while input.filled < input.bytes.len() {
            match connection.stream.read(&mut input.bytes[input.filled..]) {
                Ok(0) => return Ok(false),
                Ok(read) => input.filled += read,
                Err(error) if is_transient(&error) => {
                    connection.input = Some(input);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        let Ok(start) = frames::convert_in_place(&mut input.bytes) else { return Ok(false) };
        forward(&self.poll, &mut self.connections, &self.groups, id, &input.bytes[start..]);
        self.spare = input.bytes;
        Ok(true)
    }

    /// Writes the pending output of a writable connection.
    fn drain(&mut self, id: usize) -> Alive {
        let connection = &mut self.connections[id];
        let Some(mut output) = connection.output.take() else { return true };
        match connection.stream.write(&output.bytes[output.sent..]) {
            Ok(written) => output.sent += written,
            Err(error) if is_transient(&error) => {}
            Err(_) => return false,
        }
        if output.sent == output.bytes.len() {
            return self.poll.change(&connection.stream, id as u64, false).is_ok();
        }
        connection.output = Some(output);
        true
    }
}

/// Writes a burst to all connections of the sender's group except the sender.
fn forward(poll: &Poll, connections: &mut Slab<Connection>, groups: &Slab<Group>, sender: usize, bytes: &[u8]) {
    for member in &groups[connections[sender].group as usize].members {
        let member = *member as usize;
        if member != sender {
            send(poll, &mut connections[member], member, bytes);
        }
    }
}

/// Writes as many bytes as the socket accepts and keeps the rest. Ignores an error, because the next read returns it, too.
fn send(poll: &Poll, connection: &mut Connection, id: usize, bytes: &[u8]) {
    if let Some(output) = &mut connection.output {
        output.bytes.extend_from_slice(bytes);
        return;
    }
    let written = match connection.stream.write(bytes) {
        Ok(written) => written,
        Err(error) if is_transient(&error) => 0,
        Err(_) => return,
    };
    if written < bytes.len() && poll.change(&connection.stream, id as u64, true).is_ok() {
        connection.output = Some(Box::new(Output { bytes: bytes[written..].to_vec(), sent: 0 }));
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
