//! One thread's read buffers, shared by all its streams: an idle stream owns none.

use std::cell::RefCell;

/// How much one read may take. A TLS record is at most 16 KiB, so this is four; larger reads don't lower the CPU
/// time per byte any more (measured with COPY over loopback, 2026-11).
pub const READ_BYTES: usize = 64 * 1024;

/// The two buffers of a thread.
#[derive(Debug)]
pub struct Buffers {
    /// What came from the socket.
    pub raw: Vec<u8>,
    /// What it was decrypted to.
    pub plain: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> =
        RefCell::new(Buffers { raw: vec![0; READ_BYTES], plain: Vec::with_capacity(READ_BYTES + READ_BYTES / 4) });
}

/// Lends the thread's buffers. Must not be nested; what is in them is void afterwards.
pub fn with_buffers<T>(use_them: impl FnOnce(&mut Buffers) -> T) -> T {
    BUFFERS.with_borrow_mut(use_them)
}
