//! Locks without poisoning: if a thread panics while it holds a lock, other threads still get the
//! value.
//!
//! This is safe under one rule: no code panics between two changes of a locked value, so the value
//! is always whole. Code that may panic, such as a handler or a write, runs with no lock held.

use std::sync::{MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// The standard library's mutex, without poisoning.
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A mutex with this value.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(std::sync::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock, and holds it until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a mutex that is no longer needed.
    pub fn into_inner(self) -> T
    where
        T: Sized,
    {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, without a lock: no other thread has access.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The standard library's lock for many readers or one writer, without poisoning.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    /// A lock with this value.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock(std::sync::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until no thread writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no thread reads or writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The standard library's condition variable, for threads that wait for a change of a [`Mutex`]'s
/// value.
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// A condition variable without waiting threads.
    pub const fn new() -> Condvar {
        Condvar(std::sync::Condvar::new())
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Wakes one waiting thread.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Releases the lock, waits to be woken, and takes the lock again. It may wake without a cause.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the lock, waits until `is_done` returns true or until `deadline`, and takes the
    /// lock again. True if it is done.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Instant,
        mut is_done: impl FnMut(&T) -> bool,
    ) -> (MutexGuard<'a, T>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.0.wait_timeout_while(guard, left, |value| !is_done(value));
        let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (guard, !waited.timed_out())
    }

    /// Releases the lock, waits to be woken or until the time is over, and takes the lock again. It
    /// may wake without a cause. True if the time was over.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let (guard, waited) =
            self.0.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner);
        (guard, waited.timed_out())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_value_outlives_the_panic_of_its_holder() {
        let (mutex, lock) = (Mutex::new(1), RwLock::new(1));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            (*mutex.lock(), *lock.write()) = (2, 2);
            let _held = (mutex.lock(), lock.write());
            panic!("while both are held");
        }));
        assert!(panicked.is_err());
        assert_eq!(*mutex.lock(), 2);
        assert_eq!(*lock.read(), 2);
        assert_eq!(*lock.write(), 2);
        let (_guard, is_over) = Condvar::new().wait_timeout(mutex.lock(), Duration::ZERO);
        assert!(is_over);
    }
}
