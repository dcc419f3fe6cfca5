//! How much a link may hold, and for how long it may be silent.

use std::{sync::Arc, time::Duration};

use quinn_proto::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};

/// The longest frame, in bytes: a value of 64 KiB fits.
pub const MAX_FRAME_BYTES: usize = 72 * 1_024;
/// Longer frames have a stream of their own, so that short ones do not wait for them.
pub(super) const SHORT_FRAME_BYTES: usize = 16 * 1_024;

/// Frames that wait for room in a link, at most.
pub(super) const QUEUE_FRAMES: usize = 4_096;
/// Bytes that wait for room in a link, at most.
pub(super) const QUEUE_BYTES: usize = 1_024 * 1_024;
/// Bytes of a link on their way and not acknowledged, at most.
const SEND_WINDOW_BYTES: u64 = 2 * 1_024 * 1_024;
/// Of them, bytes of long frames: so short ones always find room.
pub(super) const LONG_WINDOW_BYTES: usize = 1_536 * 1_024;
/// Bytes of a link that have come in and were not taken yet, at most.
const RECEIVE_WINDOW_BYTES: u32 = 2 * 1_024 * 1_024;
/// Bytes of one stream that have come in and were not taken yet, at most.
const STREAM_WINDOW_BYTES: u32 = 1_024 * 1_024;
/// Long frames that are coming in at once on a link, at most: each is put together in memory.
const MAX_STREAMS: u32 = 32;

/// Links at once, those that are only being made included.
pub(super) const MAX_LINKS: usize = 4_096;
/// Links at once of one key.
pub(super) const MAX_LINKS_PER_KEY: usize = 8;
/// Links at once that others began and that are not made yet.
pub(super) const MAX_HANDSHAKES: usize = 256;
/// From that many on, a stranger has to show first that it receives where it says it does.
pub(super) const UNPROVED_HANDSHAKES: usize = 16;
/// Handshakes a second that others may begin.
pub(super) const HANDSHAKES_PER_SECOND: u32 = 200;

/// A link that is not made within this time never will be.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(3);
/// A peer that does not answer for so long is gone. Anything that is sent asks for an answer.
pub(super) const SILENT_FOR: Duration = Duration::from_millis(1_400);
/// A peer that does not answer for so long, and for two round trips, is sent a full packet: who is seen at
/// another address than before may not answer before as much has come from there. Three times as
/// long later another one, and so on.
pub(super) const PAD_AFTER: Duration = Duration::from_millis(40);
/// Bytes of padding that fill a packet.
pub(super) const PADDING_BYTES: usize = 1_100;
/// A link on which nothing came for so long is asked whether it is still there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A link on which nothing came for so long is over: one that nobody sends on any more.
const IDLE: Duration = Duration::from_secs(30);
/// How long a receiver may keep back its acknowledgement for a fuller packet: a sender learns no
/// later that the last packet of a burst was lost.
const ACK_WITHIN: Duration = Duration::from_millis(5);
/// The first guess of a round trip: what is lost of a handshake is sent again after three of them.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);

pub(super) fn transport_config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(ACK_WITHIN));
    let idle = IdleTimeout::try_from(IDLE).expect("it is far below the limit");
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // One more for the stream of short frames.
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_STREAMS + 1))
        .datagram_receive_buffer_size(None)
        .send_window(SEND_WINDOW_BYTES)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .max_idle_timeout(Some(idle))
        // Only those that are in use are kept: see `link`.
        .keep_alive_interval(None)
        .initial_rtt(FIRST_ROUND_TRIP)
        .ack_frequency_config(Some(acks));
    Arc::new(config)
}
