//! Runs closures of the application, each exactly once, where it can't hurt the loop.
//!
//! A panic in a closure is caught and logged. Closures run in the order in which their operations
//! ended. Bounded: an operation is under way until its closure begins; a watch has at most
//! `MAX_QUEUED_EVENTS` waiting.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};

use crate::core::{Event, Outcome};

/// Events that wait for the closure of one watch; more are not reported.
pub(crate) const MAX_QUEUED_EVENTS: usize = 65_536;
/// Closures that gather before their thread is woken.
const MAX_GATHERED: usize = 64;

/// Something of the application to run, once.
pub type Task = Box<dyn FnOnce() + Send>;

/// Who hears how an operation ended.
pub(crate) enum Reply {
    /// A handle: set on the loop.
    Handle(Box<dyn FnOnce(Outcome) + Send>),
    /// A closure of the application.
    Closure(Box<dyn FnOnce(Outcome) + Send>),
}

/// The closure of a watch, and how many events wait for it.
pub(crate) struct Watcher {
    closure: Box<dyn Fn(Event) + Send + Sync>,
    queued: AtomicUsize,
    is_behind: AtomicBool,
}

/// Where closures run.
pub(crate) enum Callbacks {
    /// On a thread of their own. What the loop gathers wakes it once.
    Thread { queue: Arc<Queue>, thread: Option<JoinHandle<()>>, gathered: Vec<Task> },
    /// Wherever the application wants.
    Custom(Arc<dyn Fn(Task) + Send + Sync>),
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    ended: bool,
}

impl Watcher {
    pub(crate) fn new(closure: impl Fn(Event) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            closure: Box::new(closure),
            queued: AtomicUsize::new(0),
            is_behind: AtomicBool::new(false),
        })
    }

    /// What tells the closure of an event; none where it is too far behind.
    pub(crate) fn tell(self: &Arc<Self>, event: Event) -> Option<Task> {
        if self.queued.fetch_add(1, SeqCst) >= MAX_QUEUED_EVENTS {
            self.queued.fetch_sub(1, SeqCst);
            if !self.is_behind.swap(true, SeqCst) {
                log::error!("a watch is {MAX_QUEUED_EVENTS} events behind and misses some");
            }
            return None;
        }
        let watcher = self.clone();
        Some(Box::new(move || {
            if watcher.queued.fetch_sub(1, SeqCst) == 1 {
                watcher.is_behind.store(false, SeqCst);
            }
            (watcher.closure)(event);
        }))
    }
}

impl Callbacks {
    /// Starts the thread.
    pub(crate) fn thread() -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let its_queue = queue.clone();
        let thread =
            std::thread::Builder::new().name("turbopump-callbacks".into()).spawn(move || its_queue.run())?;
        Ok(Self::Thread { queue, thread: Some(thread), gathered: Vec::new() })
    }

    /// Has a closure run soon: at the next [`flush`](Self::flush), or when enough have gathered.
    pub(crate) fn run(&mut self, task: Task) {
        match self {
            Self::Thread { gathered, .. } => {
                gathered.push(task);
                if gathered.len() >= MAX_GATHERED {
                    self.flush();
                }
            }
            Self::Custom(run) => hand_over(&**run, task),
        }
    }

    /// Has all that gathered run.
    pub(crate) fn flush(&mut self) {
        if let Self::Thread { queue, gathered, .. } = self
            && !gathered.is_empty()
        {
            queue.push_all(gathered);
        }
    }

    /// The thread that closures run on, if it is the node's own.
    pub(crate) fn thread_id(&self) -> Option<std::thread::ThreadId> {
        match self {
            Self::Thread { thread, .. } => thread.as_ref().map(|t| t.thread().id()),
            Self::Custom(_) => None,
        }
    }

    /// What other threads use to have closures run.
    pub(crate) fn runner(&self) -> Arc<dyn Fn(Task) + Send + Sync> {
        match self {
            Self::Thread { queue, .. } => {
                let queue = queue.clone();
                Arc::new(move |task| queue.push(task))
            }
            Self::Custom(run) => {
                let run = run.clone();
                Arc::new(move |task| hand_over(&*run, task))
            }
        }
    }

    /// Runs what is queued, then ends. Does not wait where it is called from a closure.
    pub(crate) fn stop(&mut self) {
        self.flush();
        if let Self::Thread { queue, thread, .. } = self {
            queue.state.lock().ended = true;
            queue.filled.notify_one();
            if let Some(thread) = thread.take()
                && thread.thread().id() != std::thread::current().id()
                && thread.join().is_err()
            {
                log::error!("the thread that runs closures ended with a panic");
            }
        }
    }
}

impl Queue {
    fn push(&self, task: Task) {
        self.push_all(&mut vec![task]);
    }

    fn push_all(&self, tasks: &mut Vec<Task>) {
        let mut state = self.state.lock();
        if state.ended {
            drop(state);
            // The thread is gone; the closures still have to run.
            return tasks.drain(..).for_each(contain);
        }
        let was_empty = state.tasks.is_empty();
        state.tasks.extend(tasks.drain(..));
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn run(&self) {
        let mut tasks = VecDeque::new();
        loop {
            {
                let mut state = self.state.lock();
                while state.tasks.is_empty() && !state.ended {
                    self.filled.wait(&mut state);
                }
                if state.tasks.is_empty() {
                    return;
                }
                std::mem::swap(&mut state.tasks, &mut tasks);
            }
            tasks.drain(..).for_each(contain);
        }
    }
}

/// Neither the closure nor the application's way of running it hurts the thread that it is on.
fn hand_over(run: &(dyn Fn(Task) + Send + Sync), task: Task) {
    contain(|| run(Box::new(move || contain(task))));
}

fn contain(task: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(task)) {
        log::error!("a closure panicked: {}", message(&*panic));
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
