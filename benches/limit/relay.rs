//! The relay: connections, groups, and the one loop that moves bytes between them. It must never wait for a single socket, and never put two
//! receivers' bytes, or one receiver's bytes of two bursts, out of order.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;

use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::frames;
use crate::greeting;
use crate::poll::Poll;

/// Bytes of a burst, what one read takes at most, unless somebody asks for another size: what fits the processor's nearer caches with room
/// to spare. A larger one makes a message of a long burst cheaper still.
pub const BURST: usize = 64 * 1024;

/// Connections that may wait to be accepted: a load generator opens thousands at once.
const ACCEPT_QUEUE: i32 = 4096;

/// What the listener is called in the set of sockets; connections are called by their place in the table.
const LISTENER: u64 = u64::MAX;

/// The group of a connection that has not shaken hands yet.
const NO_GROUP: u32 = u32::MAX;

/// Whether a connection lives on.
type Alive = bool;

/// A relay with all its connections.
pub struct Relay {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    groups: Slab<Group>,
    names: HashMap<Arc<str>, u32>,
    /// Where every burst is read to. Nothing stays in it between two turns.
    burst: Box<[u8]>,
    /// Memory for a message that is longer than a burst, to be used again.
    spare: Vec<u8>,
}

/// All an idle connection costs: this, and a place in its group's list.
struct Connection {
    stream: TcpStream,
    group: u32,
    /// Where it stands in its group's list.
    place: u32,
    input: Option<Box<Unfinished>>,
    /// What the socket did not take, oldest first.
    output: Option<Box<Output>>,
}

/// The beginning of a frame, or of a request.
struct Unfinished {
    /// What is there; for a message longer than a burst, room for all of it.
    bytes: Vec<u8>,
    /// How much of `bytes` is there.
    filled: usize,
}

struct Output {
    bytes: Vec<u8>,
    /// How much of it the socket has taken meanwhile.
    sent: usize,
}

struct Group {
    name: Arc<str>,
    members: Vec<u32>,
}

impl Relay {
    /// A relay that listens, and reads bursts of `burst` bytes.
    ///
    /// # Errors
    /// The address cannot be listened on.
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

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits until something happens and does what there is to do.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn turn(&mut self) -> io::Result<()> {
        for index in 0..self.poll.wait()? {
            let event = self.poll.event(index);
            if event.token == LISTENER {
                self.accept();
                continue;
            }
            // A connection has one event a turn, and only that one can end it: so it is there.
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
                entry.insert(Connection { stream, group: NO_GROUP, place: 0, input: None, output: None });
            }
        }
    }

    /// Takes a connection out of the table and of its group.
    fn end(&mut self, id: usize) {
        let connection = self.connections.remove(id);
        let Some(group) = self.groups.get_mut(connection.group as usize) else { return };
        group.members.swap_remove(connection.place as usize);
        if let Some(moved) = group.members.get(connection.place as usize) {
            self.connections[*moved as usize].place = connection.place;
        }
        if group.members.is_empty() {
            self.names.remove(&group.name);
            self.groups.remove(connection.group as usize);
        }
    }

    /// One read, and what follows from it.
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
        if connection.group == NO_GROUP { self.greet(id, length) } else { self.relay(id, 0..length) }
    }

    /// Answers the request in the first `length` bytes of the burst, if it is whole.
    fn greet(&mut self, id: usize, length: usize) -> io::Result<Alive> {
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
        connection.place = u32::try_from(members.len()).unwrap_or(u32::MAX);
        members.push(u32::try_from(id).unwrap_or(u32::MAX));
        send(&self.poll, connection, id, request.reply.as_bytes());
        self.relay(id, request.length..length)
    }

    /// Forwards the whole frames in this part of the burst, and keeps the beginning of the next one.
    fn relay(&mut self, id: usize, part: std::ops::Range<usize>) -> io::Result<Alive> {
        let found = frames::turn(&mut self.burst[part.clone()]);
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

    /// Keeps the beginning of something that has `needed` bytes in all.
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

    /// Reads more of a message that is longer than a burst, to where it is kept, and forwards it when it is whole.
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
        let Ok(start) = frames::turn_in_place(&mut input.bytes) else { return Ok(false) };
        forward(&self.poll, &mut self.connections, &self.groups, id, &input.bytes[start..]);
        self.spare = input.bytes;
        Ok(true)
    }

    /// Writes what waits for a connection that takes bytes again.
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

/// Writes a burst once to everybody in the sender's group but the sender.
fn forward(poll: &Poll, connections: &mut Slab<Connection>, groups: &Slab<Group>, sender: usize, bytes: &[u8]) {
    for member in &groups[connections[sender].group as usize].members {
        let member = *member as usize;
        if member != sender {
            send(poll, &mut connections[member], member, bytes);
        }
    }
}

/// Writes what the socket takes now and keeps the rest. An error is not looked at here: the next read will find it.
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
