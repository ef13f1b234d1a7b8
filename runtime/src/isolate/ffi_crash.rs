//! Says in the breadcrumb which thread brought the process down, so that a function is not blamed for what another, on
//! another thread at that moment, has done.
//!
//! V8 also crashes on threads of its own, where it finds no memory to collect garbage. So a thread whose Function has used
//! up its memory is marked as suspect while that goes on.
//!
//! Unsafe code: a signal handler. It runs on the thread that crashed, at any instruction of it, so it touches nothing but one
//! atomic, one thread-local cell without destructor, and one byte of memory that is never unmapped.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Breadcrumb;

/// V8 ends by abort, trap or an undefined instruction where it is out of memory or finds itself broken.
const SIGNALS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGFPE,
];

static MEMORY: AtomicPtr<u8> = AtomicPtr::new(null_mut());

thread_local! {
    /// The slot of this thread, once it has run JavaScript.
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Remembers whose slot is whose.
pub(super) fn this_thread_uses(slot: usize) {
    SLOT.set(slot);
}

/// From now on a crash is marked in this memory, of `Breadcrumb::SLOTS` slots that stay mapped while the process lives.
pub(super) fn install(memory: NonNull<u8>) -> io::Result<()> {
    MEMORY.store(memory.as_ptr(), Ordering::Release);
    for signal in SIGNALS {
        // SAFETY: all zeros is a valid sigaction; the handler has the signature that goes with these flags (no SA_SIGINFO)
        // and keeps to what a handler may do. On the alternate stack that Rust gives each of its threads.
        let outcome = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = crashed as *const () as usize;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND | libc::SA_NODEFER;
            libc::sigaction(signal, &action, null_mut())
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Says that the Function that this thread runs has used up its memory.
pub(super) fn suspect() {
    flag(Breadcrumb::SUSPECT);
}

/// Sets this thread's flag. May be called in a signal handler.
pub(super) fn flag(value: u8) {
    let memory = MEMORY.load(Ordering::Acquire);
    let slot = SLOT.get();
    if memory.is_null() || slot >= Breadcrumb::SLOTS {
        return;
    }
    // SAFETY: the memory is a mapping of SLOTS slots that lives as long as the process, and this thread alone writes its slot.
    unsafe {
        memory
            .add(slot * Breadcrumb::SLOT_BYTES + Breadcrumb::FLAG_AT)
            .write_volatile(value);
    }
}

/// Runs on the thread that crashed. Not reentered for one signal: SA_RESETHAND has put the default action back, which the
/// raise then takes.
extern "C" fn crashed(signal: libc::c_int) {
    flag(Breadcrumb::CRASHED);
    // SAFETY: raise may be called in a handler.
    unsafe {
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;
    use crate::control::BREADCRUMB_BYTES;

    const PATH: &str = "ISOLET_CRASH_TEST_FILE";
    const HOW: &str = "ISOLET_CRASH_TEST_HOW";

    /// This test starts itself again; the child crashes on the second of two threads that both run something.
    #[test]
    fn the_thread_that_crashes_is_marked_and_its_neighbour_is_not() {
        if let Some(path) = std::env::var_os(PATH) {
            crash(&File::options().read(true).write(true).open(path).unwrap());
        }
        for (how, signal, expected) in [
            ("abort", libc::SIGABRT, Breadcrumb::CRASHED),
            ("fault", libc::SIGSEGV, Breadcrumb::CRASHED),
            ("trap", libc::SIGTRAP, Breadcrumb::CRASHED),
            ("another thread", libc::SIGABRT, Breadcrumb::SUSPECT),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "isolate::ffi_crash::tests::the_thread_that_crashes_is_marked_and_its_neighbour_is_not"])
                .env(PATH, file.path())
                .env(HOW, how)
                .output()
                .unwrap()
                .status;
            assert_eq!(status.signal(), Some(signal), "{how}: {status}");
            let mut bytes = [0; BREADCRUMB_BYTES];
            file.as_file().read_exact_at(&mut bytes, 0).unwrap();
            let slot =
                |index: usize| &bytes[index * Breadcrumb::SLOT_BYTES..][..Breadcrumb::SLOT_BYTES];
            assert!(slot(0).starts_with(b"neighbour\0"), "{how}");
            assert_eq!(slot(0)[Breadcrumb::FLAG_AT], 0, "{how}");
            assert!(slot(1).starts_with(b"culprit\0"), "{how}");
            assert_eq!(slot(1)[Breadcrumb::FLAG_AT], expected, "{how}");
        }
    }

    fn crash(file: &File) -> ! {
        let breadcrumb = Breadcrumb::map(file).unwrap();
        breadcrumb.mark_crashes().unwrap();
        let (marked, is_marked) = mpsc::channel();
        std::thread::scope(|scope| {
            let breadcrumb = &breadcrumb;
            scope.spawn(move || {
                breadcrumb.mark(0, "neighbour");
                marked.send(()).unwrap();
                loop {
                    std::thread::park();
                }
            });
            scope.spawn(move || {
                breadcrumb.mark(1, "culprit");
                is_marked.recv().unwrap();
                match std::env::var(HOW).unwrap().as_str() {
                    // SAFETY: raise only sends this thread a signal.
                    "fault" => unsafe { libc::raise(libc::SIGSEGV) },
                    // SAFETY: as above.
                    "trap" => unsafe { libc::raise(libc::SIGTRAP) },
                    "another thread" => {
                        suspect();
                        std::thread::spawn(|| std::process::abort());
                        loop {
                            std::thread::park();
                        }
                    }
                    _ => std::process::abort(),
                };
            });
        });
        unreachable!("it has crashed")
    }
}
