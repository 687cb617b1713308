//! The walk of a user stack by unwinding tables: from the leaf to the outermost frame.

use profiler_common::limits::MAX_USER_FRAMES;
use profiler_common::settings::CLOCK_TICK_NS;
use profiler_common::unwind::{Mapping, bp, cfa, verdict};

use crate::arch::{self, Registers, signal_frame};
use crate::maps::{PROCESSES, Scratch};
use crate::rules::{self, Cache, Code, kind};
use crate::window::{self, Window};

/// Where a walk is. Belongs to a CPU and to a kind of program, which do not interrupt themselves.
#[repr(C)]
pub struct Walk {
    ip: u64,
    sp: u64,
    bp: u64,
    /// Frames found so far, the leaf included.
    pub depth: u32,
    /// 1: `ip` is where the thread is; 0: it is a return address, behind the call.
    exact: u32,
    /// 1: `ip` is certain; 0: it was guessed, see `guessed`.
    certain: u32,
    /// How many frames were found by the frame pointer for want of a rule, or by a register that a
    /// function further in may have changed.
    pub guessed: u32,
    /// One of [`verdict`], once the walk has ended.
    pub verdict: u32,
    /// The frame pointer's register could not be recovered.
    bp_lost: u32,
    /// The signal frame that keeps the registers of the last exact frame; 0: the kernel does.
    signal_frame: u64,
    code: Code,
    window: Window,
}

/// Steps that one call of a walk's body makes: what a call costs is shared by so many frames.
const STEPS: usize = 4;

/// Most bytes of a frame whose address is kept in some register: more is no frame's address.
const MAX_REGISTER_FRAME: u64 = 1 << 20;

/// Prepares a walk of the stack that these registers belong to, in this process; the leaf is the
/// first frame.
#[inline(always)]
pub fn begin(scratch: &mut Scratch, registers: &Registers, pid: u32, process_start_ns: u64) {
    start(scratch, registers);
    let walk = &mut scratch.walk;
    (walk.code.list, walk.code.first, walk.code.count) = (0, 0, 0);
    // An update puts another entry in the place of this one, which may at once become another
    // process's: what was read belongs together if its first and last field are still the same.
    if let Some(entry) = PROCESSES.get_ptr(pid) {
        // SAFETY: plain integers of an entry, which stays memory of the map.
        unsafe {
            let list = (&raw const (*entry).list).read_volatile();
            walk.code.first = (&raw const (*entry).first_mapping).read_volatile();
            walk.code.count = (&raw const (*entry).mappings).read_volatile();
            let start_ticks = (&raw const (*entry).start_ticks).read_volatile();
            if start_ticks == process_start_ns / CLOCK_TICK_NS
                && list == (&raw const (*entry).list).read_volatile()
            {
                walk.code.list = list;
            }
        }
    }
}

/// Prepares the same walk as `first` anew.
#[inline(always)]
pub fn begin_again(scratch: &mut Scratch, first: &Walk, registers: &Registers) {
    start(scratch, registers);
    let code = &mut scratch.walk.code;
    (code.list, code.first, code.count) = (first.code.list, first.code.first, first.code.count);
}

#[inline(always)]
fn start(scratch: &mut Scratch, registers: &Registers) {
    let walk = &mut scratch.walk;
    (walk.ip, walk.sp, walk.bp) = (registers.ip, registers.sp, registers.bp);
    (walk.depth, walk.exact, walk.certain, walk.guessed) = (1, 1, 1, 0);
    (walk.verdict, walk.bp_lost, walk.signal_frame) = (verdict::NONE.into(), 0, 0);
    walk.window.clear();
    (walk.code.last.start, walk.code.last.end) = (0, 0);
    scratch.frames[0] = registers.ip;
}

/// Runs a walk that has begun. `body` makes some steps, see [`steps`]; it must be a global function:
/// the verifier looks at it once, however often it is called. `bpf_loop` would call it through a
/// pointer, which costs as much again as the step itself where retpolines are on.
#[inline(always)]
pub fn run(body: extern "C" fn() -> u32) {
    for _ in 0..MAX_USER_FRAMES / STEPS + 1 {
        if body() == 0 {
            break;
        }
    }
}

/// Some steps of a walk; 0 ends it.
///
/// # Safety
/// As of [`step`].
#[inline(always)]
pub unsafe fn steps<const FAST: bool>(scratch: *mut Scratch, cache: *mut Cache) -> u32 {
    for _ in 0..STEPS {
        // SAFETY: the caller's promise.
        if !unsafe { step::<FAST>(scratch, cache) } {
            return 0;
        }
    }
    1
}

/// Goes from a frame to its caller; `false` ends the walk. `FAST` uses the cache and the window.
///
/// # Safety
/// Both must point to values of this CPU and kind of program; the cache is not used unless `FAST`.
#[inline(always)]
pub unsafe fn step<const FAST: bool>(scratch: *mut Scratch, cache: *mut Cache) -> bool {
    // SAFETY: the caller's promise.
    let scratch = unsafe { &mut *scratch };
    let walk = &mut scratch.walk;
    // The call, not what follows it: that may belong to the next function.
    let pc = if walk.exact != 0 { walk.ip } else { walk.ip.wrapping_sub(1) };
    let sp = walk.sp;
    let rule =
        if FAST { rules::cached(cache, &mut walk.code, pc, sp) } else { rules::find(&mut walk.code, pc) };
    let (how, how_bp) = (rule as u8, (rule >> 8) as u8);
    let bp_offset = (rule >> 16) as u16 as i16 as i64 as u64;
    let offset = (rule >> 32) as u32 as i32 as i64 as u64;

    let caller_sp;
    let (mut guess, mut inherited) = (false, false);
    match how {
        cfa::SP => caller_sp = walk.sp.wrapping_add(offset),
        cfa::BP => {
            if walk.bp_lost != 0 {
                return end(walk, verdict::NO_RULE);
            }
            caller_sp = walk.bp.wrapping_add(offset);
        }
        cfa::PLT => {
            let pushed = if pc & 15 >= offset { 8 } else { 0 };
            caller_sp = walk.sp.wrapping_add(8 + pushed);
        }
        cfa::DEREF_SP | cfa::DEREF_BP => {
            if how == cfa::DEREF_BP && walk.bp_lost != 0 {
                return end(walk, verdict::NO_RULE);
            }
            let base = if how == cfa::DEREF_SP { walk.sp } else { walk.bp };
            let at = base.wrapping_add((rule >> 32) as u16 as i16 as i64 as u64);
            let Some(value) = slot::<FAST>(walk, at) else { return end(walk, verdict::READ_FAULT) };
            caller_sp = value.wrapping_add((rule >> 48) as u16 as i16 as i64 as u64);
        }
        cfa::REGISTER..=cfa::LAST_INDEXED => {
            let value = arch::register(walk.signal_frame, u64::from(how & 15));
            caller_sp = if how <= cfa::LAST_REGISTER {
                value.wrapping_add(offset)
            } else {
                let at = walk.sp.wrapping_add(value.wrapping_mul(8));
                let at = at.wrapping_add((rule >> 32) as u16 as i16 as i64 as u64);
                let Some(value) = window::read(at) else { return end(walk, verdict::READ_FAULT) };
                value.wrapping_add((rule >> 48) as u16 as i16 as i64 as u64)
            };
            if caller_sp & 7 != 0 || caller_sp.wrapping_sub(walk.sp) > MAX_REGISTER_FRAME {
                return end(walk, verdict::NO_RULE);
            }
            // Only where the thread was, the registers are the frame's own. By its description the
            // functions that it calls keep this one, which is no proof.
            inherited = walk.exact == 0;
        }
        cfa::SIGNAL => return signal_frame::<FAST>(scratch),
        cfa::END => return end(walk, verdict::COMPLETE),
        _ => {
            // No rule. Code that a certain address led to is code, whether we know it or not;
            // a guessed address where no code is was no return address.
            if how == kind::NO_MAPPING && walk.certain == 0 {
                walk.depth = walk.depth.saturating_sub(1);
                walk.guessed = walk.guessed.saturating_sub(1);
                return end(walk, verdict::NO_CODE);
            }
            if walk.bp < walk.sp || walk.bp & 7 != 0 || walk.bp_lost != 0 {
                let why = match how {
                    kind::NO_TABLE => verdict::NO_TABLE,
                    kind::NO_MAPPING => verdict::NO_CODE,
                    _ => verdict::NO_RULE,
                };
                return end(walk, why);
            }
            guess = true;
            caller_sp = walk.bp.wrapping_add(16);
        }
    }
    if caller_sp <= walk.sp {
        return end(walk, verdict::BACKWARDS);
    }
    let (how_bp, bp_offset) = if guess { (bp::AT_CFA, 16_u64.wrapping_neg()) } else { (how_bp, bp_offset) };
    // The lower slot first, and it mostly is the frame pointer's.
    let mut caller_bp = walk.bp;
    // What lies beside a lost frame pointer is lost as well.
    if how_bp == bp::AT_CFA || (how_bp == bp::AT_BP && walk.bp_lost == 0) {
        let base = if how_bp == bp::AT_CFA { caller_sp } else { walk.bp };
        match slot::<FAST>(walk, base.wrapping_add(bp_offset)) {
            Some(value) => caller_bp = value,
            None => return end(walk, verdict::READ_FAULT),
        }
        walk.bp_lost = 0;
    } else if how_bp == bp::LOST {
        walk.bp_lost = 1;
    }
    let Some(caller) = slot::<FAST>(walk, caller_sp.wrapping_sub(8)) else {
        return end(walk, verdict::READ_FAULT);
    };
    if inherited && !arch::follows_call(caller) {
        return end(walk, verdict::NO_RULE);
    }
    let guess = guess || inherited;
    walk.certain = if guess { 0 } else { 1 };
    if guess {
        walk.guessed += 1;
    }
    (walk.sp, walk.bp, walk.exact) = (caller_sp, caller_bp, 0);
    append(scratch, caller)
}

/// The handler of a signal returns here; the interrupted registers lie in the frame.
#[inline(always)]
fn signal_frame<const FAST: bool>(scratch: &mut Scratch) -> bool {
    let walk = &mut scratch.walk;
    let sp = walk.sp;
    let (Some(caller_bp), Some(caller_sp), Some(caller)) = (
        slot::<FAST>(walk, sp.wrapping_add(signal_frame::BP)),
        slot::<FAST>(walk, sp.wrapping_add(signal_frame::SP)),
        slot::<FAST>(walk, sp.wrapping_add(signal_frame::IP)),
    ) else {
        return end(walk, verdict::READ_FAULT);
    };
    // A handler may run on a stack of its own, anywhere: no order can be asked for.
    (walk.sp, walk.bp, walk.exact, walk.certain, walk.bp_lost) = (caller_sp, caller_bp, 1, 1, 0);
    walk.signal_frame = sp;
    append(scratch, caller)
}

/// Adds a frame, unless the walk has come to its end.
#[inline(always)]
fn append(scratch: &mut Scratch, ip: u64) -> bool {
    let walk = &mut scratch.walk;
    if ip == 0 {
        // What has no unwinding information marks its outermost frame so.
        return end(walk, verdict::COMPLETE);
    }
    walk.ip = ip;
    let depth = walk.depth as usize;
    if depth >= MAX_USER_FRAMES {
        return end(walk, verdict::TRUNCATED);
    }
    // SAFETY: masked to the user part of the frames.
    unsafe { (&raw mut scratch.frames).cast::<u64>().add(depth & (MAX_USER_FRAMES - 1)).write_volatile(ip) };
    walk.depth = depth as u32 + 1;
    true
}

#[inline(always)]
fn end(walk: &mut Walk, why: u8) -> bool {
    walk.verdict = why.into();
    false
}

#[inline(always)]
fn slot<const FAST: bool>(walk: &mut Walk, address: u64) -> Option<u64> {
    if FAST { walk.window.slot(address) } else { window::read(address) }
}

impl Walk {
    /// Whether another walk found as many frames and ended in the same way.
    #[inline(always)]
    pub fn ended_as(&self, other: &Self) -> bool {
        self.depth == other.depth && self.verdict == other.verdict && self.guessed == other.guessed
    }

    /// Number of frames, as the verifier can bound it.
    #[inline(always)]
    pub fn frames(&self) -> u64 {
        let depth = u64::from(self.depth);
        if depth > MAX_USER_FRAMES as u64 { MAX_USER_FRAMES as u64 } else { depth }
    }
}

const _: () = assert!(size_of::<Mapping>() == 32);
