//! The resolver against live programs, compiled here, whose functions are known.

mod survive;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::model::*;
use crate::procs::identify;

use super::*;

/// Prints addresses in code, then waits for its input to end.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#define HERE(p) asm volatile("lea 0(%%rip), %0; nop; nop" : "=r"(p))
#else
#define HERE(p) asm volatile("adr %0, .; nop" : "=r"(p))
#endif
static inline __attribute__((always_inline)) void *inner(void) { void *p; HERE(p); return p; }
static inline __attribute__((always_inline)) void *middle(void) { return inner(); }
__attribute__((noinline)) void *outer(void) { void *p = middle(); asm volatile("" ::: "memory"); return p; }
__attribute__((noinline)) void a(void) { asm volatile("nop; nop; nop"); }
int main(void) {
    void *jit = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("%p %p %p\n", outer(), (void *)a, jit);
    fflush(stdout);
    a();
    return getchar() == 'x';
}
"#;

struct Program {
    child: Child,
    path: PathBuf,
    dir: tempfile::TempDir,
    addresses: Vec<u64>,
}

impl Program {
    /// Compiles and, after `change` had its way with the file, runs the program.
    fn start(compiler: &str, source: &str, flags: &[&str], change: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let code = dir.path().join(if compiler == "g++" { "program.cc" } else { "program.c" });
        let path = dir.path().join("program");
        std::fs::write(&code, source).unwrap();
        let status = Command::new(compiler).args(flags).arg("-o").arg(&path).arg(&code).status().unwrap();
        assert!(status.success());
        change(&path);
        Self::run(path, dir)
    }

    /// Runs a program that prints addresses.
    fn run(path: PathBuf, dir: tempfile::TempDir) -> Self {
        let mut child = Command::new(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
        let addresses = line.split_whitespace().map(hex).collect();
        Self { child, path, dir, addresses }
    }

    fn c(flags: &[&str], change: impl FnOnce(&Path)) -> Self {
        Self::start("gcc", PROGRAM, flags, change)
    }

    fn sample(&self, user: &[u64]) -> RawSample {
        sample(identify(Pid(self.child.id())).unwrap(), user, &[])
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sample(process: ProcessId, user: &[u64], kernel: &[u64]) -> RawSample {
    RawSample {
        time: MonoNs(1),
        process,
        tid: Tid(process.pid.0),
        comm: Comm(*b"tested\0\0\0\0\0\0\0\0\0\0"),
        cpu: 0,
        cgroup: CgroupId(1),
        kernel: kernel.into(),
        user: user.into(),
        flags: StackFlags::default(),
        measure: Measure::OnCpu { period_ns: 1 },
        waker: None,
    }
}

fn me() -> ProcessId {
    identify(Pid(std::process::id())).unwrap()
}

fn resolver() -> Resolver {
    Resolver::new(Options::default(), SharedTable::default())
}

fn run(program: &str, args: &[&str], path: &Path) {
    assert!(Command::new(program).args(args).arg(path).status().unwrap().success());
}

fn names(resolver: &mut Resolver, sample: &RawSample) -> Vec<String> {
    resolver.resolve(sample).stack.iter().map(|frame| frame.name.to_string()).collect()
}

#[inline(never)]
fn known_function(seed: u64) -> u64 {
    std::hint::black_box(seed).wrapping_mul(0x9e37_79b9) ^ 7
}

/// The test binary is linked by whatever rustc uses: rust-lld on x86-64 Linux.
#[test]
fn our_own_functions_have_their_names() {
    let address = known_function as fn(u64) -> u64 as usize as u64;
    let mut resolver = resolver();
    let Sample { stack, labels, .. } = resolver.resolve(&sample(me(), &[address], &[]));
    // Whatever was inlined into it comes first.
    let function = stack.last().unwrap();
    assert_eq!(&*function.name, "profiler_daemon::symbolize::tests::known_function");
    assert!(function.named && function.kind == FrameKind::User);
    assert!(function.module.as_ref().unwrap().has_symbols);
    let exe = std::env::current_exe().unwrap();
    assert_eq!(Path::new(&*function.module.as_ref().unwrap().path), exe);
    assert_eq!((&*labels.comm, Path::new(&*labels.exe), labels.pid), ("tested", exe.as_path(), me().pid));
    assert!(resolver.take_loss().is_empty());
}

#[test]
fn callers_are_looked_up_at_the_call() {
    let start = known_function as fn(u64) -> u64 as usize as u64;
    let mut resolver = resolver();
    let mut functions = |user: &[u64]| -> Vec<bool> {
        let Sample { stack, .. } = resolver.resolve(&sample(me(), user, &[]));
        let outermost = stack.iter().filter(|frame| frame.kind == FrameKind::User);
        outermost.map(|frame| frame.name.ends_with("::known_function")).collect()
    };
    // As a return address, a function's start belongs to whatever lies before it.
    assert_eq!(functions(&[start, start, start + 1]), [true, false, true]);
}

/// Address in memory of the C library's signal trampoline: no symbol of it is exported.
#[cfg(target_arch = "x86_64")]
fn signal_trampoline() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let code = maps.lines().find(|line| line.contains(" r-xp ") && line.contains("libc.so.6")).unwrap();
    let fields: Vec<&str> = code.split_whitespace().collect();
    let number = |digits| u64::from_str_radix(digits, 16).unwrap();
    let (start, offset) = (number(fields[0].split('-').next().unwrap()), number(fields[2]));
    let file = std::fs::read(fields[5]).unwrap();
    let bytes = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
    start + memchr::memmem::find(&file[offset as usize..], &bytes).unwrap() as u64
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_signal_trampoline_is_named_and_what_it_interrupted_is_exact() {
    let start = known_function as fn(u64) -> u64 as usize as u64;
    let trampoline = signal_trampoline();
    let mut resolver = resolver();
    let Sample { stack, .. } = resolver.resolve(&sample(me(), &[start, trampoline, start, start], &[]));
    let names: Vec<&str> = stack
        .iter()
        .filter(|frame| frame.kind == FrameKind::User)
        .map(|frame| if frame.name.ends_with("::known_function") { "known" } else { &*frame.name })
        .collect();
    assert_eq!((names[0], names[2]), ("known", "known"), "{names:?}");
    assert!(["__restore_rt", "[signal trampoline]"].contains(&names[1]), "{names:?}");
    assert_ne!(names[3], "known", "its caller is looked up at the call again");
    assert!(stack.iter().all(|frame| frame.named || &*frame.name == names[3]), "{names:?}");
}

#[test]
fn equal_frames_are_one_allocation() {
    let start = known_function as fn(u64) -> u64 as usize as u64;
    let mut resolver = resolver();
    let Sample { stack, labels, .. } = resolver.resolve(&sample(me(), &[start, start + 2], &[]));
    let Sample { stack: again, labels: same_labels, .. } = resolver.resolve(&sample(me(), &[start], &[]));
    let named = |stack: &[Arc<Frame>]| -> Vec<Arc<Frame>> {
        stack.iter().filter(|frame| frame.name.ends_with("known_function")).cloned().collect()
    };
    let (two, one) = (named(&stack), named(&again));
    assert!(Arc::ptr_eq(&two[0], &two[1]), "one function, two addresses");
    assert!(Arc::ptr_eq(&two[0], &one[0]));
    assert!(Arc::ptr_eq(&labels, &same_labels));
}

#[test]
fn a_function_of_libc_has_its_name() {
    let getpid = libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64;
    let mut resolver = resolver();
    let Sample { stack, .. } = resolver.resolve(&sample(me(), &[getpid], &[]));
    assert!(stack[0].name.contains("getpid"), "{stack:?}");
    assert!(stack[0].module.as_ref().unwrap().path.contains("libc"));
}

#[test]
fn inlined_functions_come_before_the_one_they_were_inlined_into() {
    for flags in
        [&["-g", "-O2"][..], &["-g", "-O2", "-no-pie"], &["-g", "-O2", "-static"], &["-g", "-O2", "-gz=zlib"]]
    {
        let program = Program::c(flags, |_| {});
        let mut resolver = resolver();
        let Sample { stack, .. } = resolver.resolve(&program.sample(&program.addresses[..1]));
        let shown: Vec<_> = stack.iter().map(|frame| (&*frame.name, frame.kind)).collect();
        let inlined = FrameKind::UserInlined;
        assert_eq!(shown, [("inner", inlined), ("middle", inlined), ("outer", FrameKind::User)], "{flags:?}");
        let source = stack[2].source.as_ref().unwrap();
        assert!(source.file.ends_with("program.c"), "{source:?}");
    }
}

#[test]
fn without_inlining_only_the_function_itself_is_shown() {
    let program = Program::c(&["-g", "-O2"], |_| {});
    let mut resolver =
        Resolver::new(Options { inlined: false, ..Options::default() }, SharedTable::default());
    assert_eq!(names(&mut resolver, &program.sample(&program.addresses[..1])), ["outer"]);
}

#[test]
fn a_c_function_called_a_stays_a() {
    let program = Program::c(&["-O2"], |_| {});
    assert_eq!(names(&mut resolver(), &program.sample(&program.addresses[1..2])), ["a"]);
}

#[test]
fn cpp_names_are_demangled() {
    let source = "#include <cstdio>\nnamespace ns { struct T { void f(int); }; \
        __attribute__((noinline)) void T::f(int) { asm volatile(\"nop\"); } }\n\
        int main() { void (ns::T::*p)(int) = &ns::T::f; std::printf(\"%p\\n\", *(void **)&p); std::fflush(stdout); return getchar(); }";
    let program = Program::start("g++", source, &["-O1"], |_| {});
    assert_eq!(names(&mut resolver(), &program.sample(&program.addresses)), ["ns::T::f(int)"]);
}

#[test]
fn a_stripped_binary_gives_its_name_and_the_address_in_it() {
    let mut start = 0;
    let program = Program::c(&["-O2"], |path| {
        let nm = Command::new("nm").arg(path).output().unwrap();
        let text = String::from_utf8(nm.stdout).unwrap();
        let line = text.lines().find(|line| line.ends_with(" T a")).unwrap();
        start = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
        run("strip", &[], path);
    });
    let Sample { stack, .. } = resolver().resolve(&program.sample(&program.addresses[1..2]));
    assert_eq!(&*stack[0].name, format!("[program+{start:#x}]"));
    assert_eq!((stack[0].named, stack[0].address), (false, start));
    assert!(!stack[0].module.as_ref().unwrap().has_symbols);
    assert_eq!(Path::new(&*stack[0].module.as_ref().unwrap().path), program.path);
}

#[test]
fn separate_debug_information_is_found_by_build_id_and_by_link() {
    for by_link in [false, true] {
        let debug_dir = tempfile::tempdir().unwrap();
        let program = Program::c(&["-g", "-O2", "-Wl,--build-id=0xabcdef0123456789"], |path| {
            let beside = debug_dir.path().join(path.parent().unwrap().strip_prefix("/").unwrap());
            let target = if by_link {
                beside.join("program.debug")
            } else {
                debug_dir.path().join(".build-id/ab/cdef0123456789.debug")
            };
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            run("objcopy", &["--only-keep-debug", path.to_str().unwrap()], &target);
            run("strip", &[], path);
            if by_link {
                run("objcopy", &[&format!("--add-gnu-debuglink={}", target.display())], path);
            }
        });
        let options = Options { debug_dirs: vec![debug_dir.path().to_owned()], ..Options::default() };
        let mut resolver = Resolver::new(options, SharedTable::default());
        let Sample { stack, .. } = resolver.resolve(&program.sample(&program.addresses[..1]));
        let shown: Vec<_> = stack.iter().map(|frame| &*frame.name).collect();
        assert_eq!(shown, ["inner", "middle", "outer"], "by link: {by_link}");
        let build_id = stack[0].module.as_ref().unwrap().build_id.clone();
        assert_eq!(build_id.as_deref(), Some("abcdef0123456789"));
    }
}

#[test]
fn a_deleted_binary_of_an_exited_process_still_resolves() {
    let mut program = Program::c(&["-g", "-O2"], |_| {});
    std::fs::remove_file(&program.path).unwrap();
    let mut resolver = resolver();
    let sample = program.sample(&program.addresses[..1]);
    resolver.resolve(&RawSample { user: [].into(), ..sample.clone() });
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    assert_eq!(names(&mut resolver, &sample), ["inner", "middle", "outer"]);
    assert!(resolver.take_loss().is_empty());
}

#[test]
fn a_process_that_was_never_seen_alive_is_counted() {
    let id = ProcessId { pid: Pid(4_000_000_000), start_ticks: 1 };
    let mut resolver = resolver();
    assert_eq!(
        names(&mut resolver, &sample(id, &[0x1234, 0x5679], &[])),
        ["[tested+0x1234]", "[tested+0x5678]"]
    );
    let loss: Vec<_> =
        resolver.take_loss().iter().map(|line| (line.stage, line.reason, line.count)).collect();
    assert_eq!(loss, [(Stage::Symbolize, "process gone before its maps were read", 1)]);
    assert!(resolver.take_loss().is_empty());
}

#[test]
fn generated_code_takes_its_names_from_the_perf_map() {
    let mut program = Program::c(&["-O2"], |_| {});
    let jit = program.addresses[2];
    let map = format!("/tmp/perf-{}.map", program.child.id());
    std::fs::write(&map, format!("{jit:x} 100 LazyCompile:f file.js:1\n")).unwrap();
    let mut resolver = resolver();
    let sample = program.sample(&[jit + 0x10, jit + 0x200]);
    let Sample { stack, .. } = resolver.resolve(&sample);
    std::fs::remove_file(&map).unwrap();
    assert_eq!(
        (&*stack[0].name, stack[0].kind, stack[0].address),
        ("LazyCompile:f file.js:1", FrameKind::Jit, jit)
    );
    assert_eq!(&*stack[1].name, format!("[anon+{:#x}]", jit + 0x1ff));
    assert!(!stack[1].named);

    program.child.kill().unwrap();
    program.child.wait().unwrap();
    assert_eq!(&*resolver.resolve(&sample).stack[0].name, "LazyCompile:f file.js:1");
    assert!(program.dir.path().exists());
}

#[test]
fn the_vdso_has_names() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, rest) = line.split_once('-').unwrap();
    let start = u64::from_str_radix(start, 16).unwrap();
    let end = u64::from_str_radix(rest.split(' ').next().unwrap(), 16).unwrap();
    let addresses: Vec<u64> = (start..end).step_by(16).collect();
    let Sample { stack, .. } = resolver().resolve(&sample(me(), &addresses, &[]));
    assert!(stack.iter().any(|frame| frame.named && frame.name.contains("clock_gettime")), "{stack:?}");
}

#[test]
fn kernel_frames_have_names_or_say_why_not() {
    let kallsyms = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let (address, name) = kallsyms
        .lines()
        .filter_map(|line| line.split_once(" T "))
        .map(|(address, name)| (u64::from_str_radix(address, 16).unwrap(), name))
        .find(|(_, name)| *name == "schedule")
        .unwrap();
    let hidden = address == 0;
    let address = if hidden { 0xffff_ffff_8100_1000 } else { address };
    let mut resolver = resolver();
    let Sample { stack, .. } = resolver.resolve(&sample(me(), &[], &[address, address + 1]));
    assert!(stack.iter().all(|frame| frame.kind == FrameKind::Kernel));
    if hidden {
        assert_eq!(&*stack[0].name, format!("[kernel+{address:#x}]"));
        assert_eq!(resolver.take_loss().total(), 1);
    } else {
        assert!(stack.iter().all(|frame| *frame.name == *name), "{stack:?}");
        assert!(Arc::ptr_eq(&stack[0], &stack[1]));
        assert!(resolver.take_loss().is_empty());
    }
}

#[test]
fn the_thread_passes_everything_on_and_ends_with_its_input() {
    let (to, input) = tokio::sync::mpsc::channel(4);
    let (output, mut from) = tokio::sync::mpsc::channel(4);
    let symbolizer = Symbolizer::spawn(Options::default(), SharedTable::default(), input, output).unwrap();
    let mut loss = KindLoss::default();
    loss.on_cpu.add(Stage::Kernel, "ring full", 3);
    let gone = ProcessId { pid: Pid(4_000_000_000), start_ticks: 1 };
    let on_cpu = sample(gone, &[1], &[]);
    let off_cpu = RawSample {
        measure: Measure::OffCpu {
            blocked_ns: 1,
            run_queue_ns: 0,
            preempted_ns: 0,
            state: TaskState::Interruptible,
            wait: Wait::Other,
            sequence: 0,
            open: false,
            sampled: Sampled::default(),
        },
        ..on_cpu.clone()
    };
    to.blocking_send(RawBatch {
        samples: vec![on_cpu, off_cpu],
        loss,
        ended: vec![7],
        ..RawBatch::default()
    })
    .unwrap();
    drop(to);
    let batch = from.blocking_recv().unwrap();
    assert_eq!((batch.samples.len(), batch.ended), (2, vec![7]));
    assert_eq!(batch.loss.on_cpu.total(), 4);
    assert_eq!(batch.loss.off_cpu.total(), 1);
    assert_eq!(from.blocking_recv().map(|batch| batch.samples.len()), None);
    symbolizer.join().unwrap();
}

#[test]
fn thread_and_process_are_told_apart() {
    let program = Program::c(&["-O1"], |_| {});
    let labels = resolver().resolve(&program.sample(&[])).labels;
    assert_eq!((&*labels.comm, &*labels.process), ("tested", "program"));
    assert_eq!(labels.get("thread").as_deref(), Some("tested"));
    assert_eq!(labels.get("comm").as_deref(), Some("program"));
    // A process that is gone before it was seen has its thread's name only.
    let gone = ProcessId { pid: Pid(4_000_000_000), start_ticks: 1 };
    let labels = resolver().resolve(&sample(gone, &[], &[])).labels;
    assert_eq!((&*labels.process, labels.get("comm").as_deref()), ("", Some("tested")));
}
