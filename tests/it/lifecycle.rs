//! The daemon can be killed at any time and leaves nothing behind; asked to end, it ends cleanly.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use profiler_tests::bpf::{Held, pinned, wait_for_programs};
use profiler_tests::daemon::Site;
use profiler_tests::require_root;
use profiler_tests::run::Running;
use rustix::process::Signal;

#[test]
fn a_killed_daemon_leaves_nothing_and_the_next_one_starts_at_once() -> Result<()> {
    let _exclusive = require_root!();
    let pinned_before = pinned();
    let site = Site::new()?;
    let since = Instant::now();
    drop(site.start()?);
    let start_up = since.elapsed();

    let mut held_any = false;
    // Moments within the start, and one after it. The clock is what makes them differ from run to run.
    for round in 0..6u32 {
        let jitter = Duration::from_micros(u64::from(since.elapsed().subsec_nanos() % 50_000));
        let daemon = site.spawn()?;
        std::thread::sleep(start_up * round / 4 + jitter);
        let held = kill_and_look(daemon)?;
        held_any |= !held.programs.is_empty();
        held.wait_until_gone().with_context(|| format!("killed in round {round}"))?;
        assert_eq!(pinned(), pinned_before, "killed in round {round}");
    }
    // Killed while it serves.
    let daemon = site.start()?;
    let held = kill_and_look(daemon.running)?;
    assert!(!held.programs.is_empty() && !held.maps.is_empty(), "a daemon without programs: {held:?}");
    held.wait_until_gone()?;
    assert_eq!(pinned(), pinned_before);
    assert!(held_any, "no kill came while programs were loaded");
    assert!(site.socket().exists(), "a killed daemon cannot remove its socket");
    // The stale socket is no obstacle.
    let again = site.start()?;
    assert!(again.client()?.services()?.len() >= 4);
    Ok(())
}

/// Kills a process with SIGKILL and tells which BPF objects it held at that moment: it is stopped
/// first, so that what is seen is what is left behind.
fn kill_and_look(daemon: Running) -> Result<Held> {
    daemon.signal(Signal::STOP)?;
    let held = Held::by(daemon.pid())?;
    assert_eq!(held.still_loaded(), held, "what is looked for later must be visible now");
    daemon.signal(Signal::KILL)?;
    let outcome = daemon.wait()?;
    assert_eq!(outcome.code, None, "not killed, but ended: {outcome}");
    Ok(held)
}

#[test]
fn asked_to_end_the_daemon_ends_with_code_0_and_removes_its_socket() -> Result<()> {
    let _exclusive = require_root!();
    let pinned_before = pinned();
    for signal in [Signal::TERM, Signal::INT] {
        let site = Site::new()?;
        let daemon = site.start()?;
        let held = wait_for_programs(daemon.running.pid())?;
        daemon.running.signal(signal)?;
        let outcome = daemon.running.wait_at_most(Duration::from_secs(30))?.expect_code(0)?;
        assert!(!site.socket().exists(), "{signal:?}: the socket is still there: {outcome}");
        held.wait_until_gone()?;
        assert_eq!(pinned(), pinned_before);
    }
    Ok(())
}

#[test]
fn a_second_daemon_is_refused_and_the_first_one_serves_on() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let daemon = site.start()?;
    let second = site.spawn()?.wait()?.expect_code(5)?;
    let socket = site.socket();
    assert!(second.stderr.contains(&*socket.to_string_lossy()), "the socket is not named: {second}");
    assert!(daemon.client()?.is_serving()?);
    Ok(())
}

#[test]
fn a_socket_of_another_program_is_left_alone() -> Result<()> {
    let _exclusive = require_root!();
    let site = Site::new()?;
    let _listener = UnixListener::bind(site.socket())?;
    site.spawn()?.wait()?.expect_code(5)?;
    assert!(site.socket().exists());

    // Neither is a file that is no socket at all removed.
    let site = Site::new()?;
    std::fs::write(site.socket(), "precious")?;
    let refused = site.spawn()?.wait()?;
    assert!(matches!(refused.code, Some(1 | 5)), "{refused}");
    assert_eq!(std::fs::read_to_string(site.socket())?, "precious");
    Ok(())
}

#[test]
fn the_socket_is_not_for_everybody() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let _exclusive = require_root!();
    let site = Site::new()?;
    let _daemon = site.start()?;
    let mode = |path: &Path| Ok::<_, std::io::Error>(std::fs::metadata(path)?.permissions().mode() & 0o7777);
    assert_eq!(mode(&site.socket())? & 0o007, 0, "others may connect");
    Ok(())
}
