package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process has used so far.
type Usage struct {
	CPU         time.Duration `json:"cpu_ns"`
	RSS         int64         `json:"rss_bytes"`
	RSSFirst    int64         `json:"rss_first_bytes,omitempty"` // where a difference began
	Voluntary   uint64        `json:"voluntary_switches"`
	Involuntary uint64        `json:"involuntary_switches"`
}

func (u Usage) minus(v Usage) Usage {
	return Usage{u.CPU - v.CPU, u.RSS, v.RSS, u.Voluntary - v.Voluntary, u.Involuntary - v.Involuntary}
}

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on
// every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// usageOf reads what the process has used, in all its threads, those that have
// ended too.
func usageOf(pid int) (u Usage, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u, err
	}
	// Behind the name, which may hold anything, in parentheses.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return u, fmt.Errorf("%s/stat: too few fields", dir)
	}
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return u, fmt.Errorf("%s/stat: %w", dir, err)
		}
		u.CPU += time.Duration(n) * clockTick
	}
	if pages, err := strconv.ParseInt(string(fields[21]), 10, 64); err == nil {
		u.RSS = pages * int64(os.Getpagesize())
	}
	tasks, _ := filepath.Glob(filepath.Join(dir, "task", "*"))
	var precise time.Duration
	for _, t := range tasks {
		b, err := os.ReadFile(filepath.Join(t, "status"))
		if err != nil {
			continue // it has ended
		}
		s := bufio.NewScanner(bytes.NewReader(b))
		for s.Scan() {
			name, value, _ := strings.Cut(s.Text(), ":")
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			switch name {
			case "voluntary_ctxt_switches":
				u.Voluntary += n
			case "nonvoluntary_ctxt_switches":
				u.Involuntary += n
			}
		}
		if b, err = os.ReadFile(filepath.Join(t, "schedstat")); err == nil {
			if f := bytes.Fields(b); len(f) > 0 {
				n, _ := strconv.ParseInt(string(f[0]), 10, 64)
				precise += time.Duration(n)
			}
		}
	}
	// Threads that have ended are in stat alone, nanoseconds in schedstat alone.
	if precise > u.CPU {
		u.CPU = precise
	}
	return u, nil
}

// Pin has all threads of this process, and those to come, run on cores.
func Pin(cores []int) error {
	if len(cores) == 0 {
		return nil
	}
	set := coreSet(cores)
	tasks, _ := filepath.Glob("/proc/self/task/*")
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pinning to cores %v: %w", cores, err)
		}
	}
	return nil
}

// Cores are those that this process may run on.
func Cores() (list []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(os.Getpid(), &set) != nil {
		return nil
	}
	for core := range len(set) * strconv.IntSize {
		if set.IsSet(core) {
			list = append(list, core)
		}
	}
	return list
}

func coreSet(cores []int) (set unix.CPUSet) {
	for _, c := range cores {
		set.Set(c)
	}
	return set
}

// pinned calls f on a thread of these cores: what it starts inherits them.
func pinned(cores []int, f func() error) error {
	if len(cores) == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	set := coreSet(cores)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pinning to cores %v: %w", cores, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	return f()
}

// Machine is where a result was measured.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// ThisMachine describes the machine we run on.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.SplitSeq(string(b), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}
