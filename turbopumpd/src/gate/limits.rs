//! Every limit of the gate: unit in the name, default, and the reason for it.

use std::time::Duration;

/// What the gate allows. The defaults suit a daemon on one machine of any size.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The request line: method, target and version. More is answered 414.
    pub request_line_bytes: usize,
    /// All header lines together. More is answered 431.
    pub header_bytes: usize,
    /// The body of one request. More is answered 413.
    pub body_bytes: u64,
    /// Bodies up to this length are held until they are complete, so that a slow sender holds
    /// neither a lane nor a thread. Longer ones stream.
    pub held_body_bytes: usize,
    /// Answers up to this length (head included) go out in one write once they are complete.
    /// Longer ones stream. Also how much of an answer waits for a slow client.
    pub held_answer_bytes: usize,
    /// Client connections at once. When they are used up, an idle one makes room for the next.
    pub connections: usize,
    /// Requests that wait for a lane. One more is answered 503.
    pub queued_requests: usize,
    /// Lanes (private connections to `tiny_http`, a thread each) that are always open.
    pub base_lanes: usize,
    /// Lanes at most: the number of requests that run at once.
    pub lanes: usize,
    /// Of these, how many may be taken by requests that wait long by nature.
    pub long_lanes: usize,
    /// Of these, how many may be taken by bodies that stream.
    pub streaming_lanes: usize,
    /// How long a request waits for one of the open lanes before another is opened. Small, since
    /// it delays what comes behind slow requests; not 0, so that quick requests share few threads.
    pub grow_after: Duration,
    /// A lane beyond the base that was not used for so long is closed.
    pub lane_idle: Duration,
    /// From the first byte of a request (or the connection's start) to the end of its head.
    pub head_timeout: Duration,
    /// Without a byte of the body. Also the least time that a body gets.
    pub body_idle: Duration,
    /// Slowest sender of a body that is put up with, averaged, after `body_idle`.
    pub body_bytes_per_second: u64,
    /// Between two requests of one connection.
    pub keep_alive_idle: Duration,
    /// The same for a client that sends no `Host`: a person with netcat, who waits for the end.
    pub hostless_idle: Duration,
    /// A client that ended its sending half still gets its answer within this time. Longer
    /// running requests of such clients are given up, for most of them have left.
    pub half_closed_grace: Duration,
    /// Without the client taking a byte of its answer.
    pub write_stall: Duration,
    /// How long a refused client may go on sending before the connection is torn down.
    pub linger: Duration,
    /// How long a request waits for a lane before it is answered 503.
    pub queue_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line_bytes: 8 * 1024,
            header_bytes: 32 * 1024,
            body_bytes: 64 * 1024 * 1024,
            held_body_bytes: 64 * 1024,
            held_answer_bytes: 64 * 1024,
            connections: 4096,
            queued_requests: 2048,
            base_lanes: 4,
            lanes: 512,
            long_lanes: 384,
            streaming_lanes: 16,
            grow_after: Duration::from_millis(1),
            lane_idle: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            body_bytes_per_second: 16 * 1024,
            keep_alive_idle: Duration::from_secs(75),
            hostless_idle: Duration::from_secs(3),
            half_closed_grace: Duration::from_secs(5),
            write_stall: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            queue_timeout: Duration::from_secs(10),
        }
    }
}

/// Descriptors that one lane takes: the gate's end, and two in `tiny_http`.
const DESCRIPTORS_PER_LANE: usize = 3;

/// Descriptors left to the store, the peers and whatever else the process opens.
const RESERVED_DESCRIPTORS: usize = 128;

impl Limits {
    /// Lowers the limits so that they fit `descriptors` open files: `tiny_http` does not survive
    /// running out of them, so lanes must never be the ones that find none left.
    #[must_use]
    pub fn fit(mut self, descriptors: usize) -> Self {
        let spare = RESERVED_DESCRIPTORS.min(descriptors / 3);
        let usable = descriptors.saturating_sub(spare);
        self.lanes = self.lanes.min((usable / 2 / DESCRIPTORS_PER_LANE).max(1));
        self.base_lanes = self.base_lanes.min(self.lanes);
        self.long_lanes = self.long_lanes.min((self.lanes * 3 / 4).max(1));
        self.streaming_lanes = self.streaming_lanes.min((self.lanes / 2).max(1));
        let left = usable.saturating_sub(self.lanes * DESCRIPTORS_PER_LANE);
        self.connections = self.connections.min(left.max(4));
        self
    }
}
