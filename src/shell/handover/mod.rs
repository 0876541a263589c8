//! Handover: the process executes its program anew under the same process id, with the same sockets, and no game notices.
//!
//! It puts in force what cannot change within the process: other ports, and another version of the program.
//!
//! ```text
//! signals' thread                          event loop                       the program, executed anew
//! 1. open the new ports
//! 2. snapshot  --------------------------> core
//! 3. run the program as a child: can it
//!    restore this? If not, nothing changes
//! 4. let HTTP requests end
//! 5. block signals, then  ---------------> 6. call the halt, relay on until
//!                                             all players' threads have ended
//!                                          7. manifest, exec ------------> 8. restore the core, adopt the sockets
//!                                                                            9. relay, and then start players' threads
//!                                                                            10. allow signals, tell who asked
//! ```
//!
//! Datagrams wait in the sockets' buffers from 7 to 9, players' bytes from 6 to 9. The manifest is in a sealed memory file,
//! because it holds PrivateIDs. It is the new program's standard input. The sockets keep their descriptors, in the manner in
//! which systemd passes them (sd_listen_fds(3)). If the program cannot be executed, nothing has changed.
//!
//! Another thread than the loop's closes the old program's file and epoll instance: that takes the kernel milliseconds.

mod arrival;
mod departure;
mod manifest;
mod openings;
mod program;

pub(crate) use arrival::Remains;
pub use arrival::{Arrival, Requested, check, requested};
pub(crate) use departure::{Departure, Passed, check_room, depart};
pub(crate) use manifest::{Manifest, ManifestReader, PlayerConnection, SocketRole};
pub(crate) use openings::Openings;
pub use program::Program;
