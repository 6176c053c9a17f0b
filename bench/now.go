package bench

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Go's scheduler is told of each system call, since most may wait, and its
// monitor thread then looks every 20 us whether to give the processor away. For
// calls that cannot wait, or not for long, that cost a tenth of the core that
// clients and schedule share.

// readNow is read(2) on a descriptor that does not block.
func readNow(fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// readyNow is what epoll_wait(2) knows without waiting.
func readyNow(ep int, events *[eventsMax]unix.EpollEvent) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(events)), eventsMax, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// napMax bounds a sleep that the scheduler does not know of: a collection of
// garbage waits for it.
const napMax = time.Millisecond

// nap sleeps for d, to within some 50 us.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	if d > napMax {
		_ = unix.Nanosleep(&ts, nil)
		return
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
