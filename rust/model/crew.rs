//! Threads that go through the same passes together: in each they claim numbered pieces of work, and none begins the
//! next pass before all have finished.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The threads of some work, and how far it is.
pub(crate) struct Crew<'a> {
    barrier: Barrier,
    claimed: Vec<AtomicUsize>,
    interruption: &'a Interruption<'a>,
}

impl<'a> Crew<'a> {
    /// A crew for so many passes.
    pub fn new(passes: usize, interruption: &'a Interruption<'a>) -> Self {
        let claimed = (0..passes).map(|_| AtomicUsize::new(0)).collect();
        Self { barrier: Barrier::default(), claimed, interruption }
    }

    /// A crew of the calling thread alone.
    pub fn alone(passes: usize, interruption: &'a Interruption<'a>) -> Self {
        let crew = Self::new(passes, interruption);
        crew.barrier.state().threads = 1;
        crew
    }

    /// Run work on at most so many threads, this one among them, which leads; on as many as the system gives.
    pub fn run(&self, threads: usize, work: impl Fn(bool) + Sync) {
        std::thread::scope(|scope| {
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, || work(false)).ok();
            let others = (1..threads).map_while(spawn).count();
            self.barrier.state().threads = others + 1;
            work(true);
        });
    }

    /// Do what of the `count` pieces of a pass the other threads leave. Each thread calls this for each pass in turn;
    /// whoever is the `leader` asks whether the work was interrupted, after which no more of it is done.
    pub fn pass(&self, pass: usize, count: usize, leader: bool, mut work: impl FnMut(usize)) {
        loop {
            let piece = self.claimed[pass].fetch_add(1, Ordering::Relaxed);
            if piece >= count || self.interruption.is_there(leader) {
                break;
            }
            work(piece);
        }
        // Also after an interruption: threads that waited for one that had left would wait forever.
        self.barrier.wait();
    }
}

/// Holds threads until all have come. How many they are is said by one of them, before it comes itself.
#[derive(Default)]
struct Barrier {
    state: Mutex<State>,
    all_there: Condvar,
}

#[derive(Default)]
struct State {
    threads: usize,
    waiting: usize,
    round: usize,
}

impl Barrier {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let mut state = self.state();
        let round = state.round;
        state.waiting += 1;
        if state.waiting == state.threads {
            state.waiting = 0;
            state.round += 1;
            self.all_there.notify_all();
        }
        while state.round == round {
            state = self.all_there.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Whether somebody wants the work to end.
pub(crate) struct Interruption<'a> {
    asked: &'a dyn Fn() -> bool,
    noticed: &'a AtomicBool,
}

// SAFETY: `asked` is called by the leader alone, who is the thread that made it; the other threads read the flag.
unsafe impl Sync for Interruption<'_> {}

impl<'a> Interruption<'a> {
    /// `asked` is called now and then by the thread that leads.
    pub fn new(asked: &'a dyn Fn() -> bool, noticed: &'a AtomicBool) -> Self {
        Self { asked, noticed }
    }

    /// Whether it was noticed; the leader asks first.
    pub fn is_there(&self, leader: bool) -> bool {
        if leader && !self.noticed.load(Ordering::Relaxed) && (self.asked)() {
            self.noticed.store(true, Ordering::Relaxed);
        }
        self.noticed.load(Ordering::Relaxed)
    }
}
