//! The first process of every pod: it holds the pod's namespaces, reaps what is orphaned into it, and ends on
//! SIGINT or SIGTERM. It is linked without any library, so that the image holds this one small file.
//!
//! Compiled by `build.rs`, on its own.

#![no_std]
#![no_main]

use core::arch::asm;

const SIGINT: u64 = 2;
const SIGTERM: u64 = 15;
const SIGCHLD: usize = 17;
const SIG_IGN: usize = 1;
const SIG_BLOCK: usize = 0;
const MASK_SIZE: usize = 8;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const EXIT_GROUP: usize = 94;
}

/// The kernel's `struct sigaction`: handler, flags, restorer (unused when the signal is ignored), mask.
#[repr(C)]
struct SigAction([usize; 4]);

#[cfg(target_arch = "x86_64")]
unsafe fn syscall(nr: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers rcx and r11 only; the arguments are valid for each call made below.
    unsafe {
        asm!("syscall", inlateout("rax") nr => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn syscall(nr: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the arguments are valid for each call made below.
    unsafe {
        asm!("svc 0", in("x8") nr, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            options(nostack));
    }
    result
}

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    // Ignoring SIGCHLD makes the kernel reap every child at once, which also serves pods that share this
    // process' PID namespace.
    let ignore = SigAction([SIG_IGN, 0, 0, 0]);
    let stop: u64 = (1 << (SIGINT - 1)) | (1 << (SIGTERM - 1));
    let mask = (&raw const stop) as usize;
    // SAFETY: plain system calls on values that live until the process ends.
    unsafe {
        syscall(number::RT_SIGACTION, SIGCHLD, (&raw const ignore) as usize, 0, MASK_SIZE);
        syscall(number::RT_SIGPROCMASK, SIG_BLOCK, mask, 0, MASK_SIZE);
        // Without a timeout this returns with a signal, or is interrupted and waits again.
        while syscall(number::RT_SIGTIMEDWAIT, mask, 0, 0, MASK_SIZE) < 0 {}
        loop {
            syscall(number::EXIT_GROUP, 0, 0, 0, 0);
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
