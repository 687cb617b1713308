//! The tree is sound, each bad argument is refused with a useful line, the help is as blessed.

use std::path::Path;
use std::time::Duration;

use clap::CommandFactory as _;

use super::*;
use crate::model::ProfileKind;
use crate::render::Format;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::parse_line(std::iter::once("profiler").chain(line.split_whitespace()).map(OsString::from))
}

fn record(line: &str) -> RecordArgs {
    match parse(&format!("record {line}")).expect("a valid line").command {
        Command::Record(args) => args,
        other => panic!("{other:?}"),
    }
}

fn refused(line: &str, part: &str) {
    let error = parse(line).expect_err(line);
    assert_eq!(error.exit_code(), 2, "{line}");
    let text = error.to_string();
    assert!(text.contains(part), "{line}: {part:?} is not in {text}");
}

#[test]
fn the_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn bad_record_arguments() {
    refused("record -F 0", "between 1 and the limit of 100000");
    refused("record -F 100001", "between 1 and the limit of 100000");
    refused("record -F fast", "between 1 and the limit of 100000");
    refused("record -d 10", "not a duration such as 10s");
    refused("record -d 0", "must be between 100ms and 1day");
    refused("record -p 0", "process id between 1 and 4194304");
    refused("record -p 1,x", "process id between 1 and 4194304");
    refused("record -p 1 --cgroup /a", "cannot be used with");
    refused("record -p 1 -- true", "cannot be used with");
    refused("record --cgroup /a -- true", "cannot be used with");
    refused("record --off-cpu --wall", "cannot be used with");
    refused("record --off-cpu -F 9", "cannot be used with");
    refused("record --min-block 1ms", "--off-cpu|--wall");
    refused("record -o a.txt", ".speedscope.json");
    refused("record -o /", "must name a file");
    refused("record -o a.svg --format folded", "cannot be used with");
    refused("record --format folded -- true", "cannot be used with");
    refused("record --format png", "png");
    refused("record true", "unexpected argument");
    refused("", "Usage:");
    refused("recrod", "record");
}

#[test]
fn bad_client_arguments() {
    refused("flamegraph --kind wall", "use on-cpu or off-cpu");
    refused("flamegraph --since 0s", "must be between 1s and");
    refused("flamegraph --since 5m --from 14:00", "cannot be used with");
    refused("flamegraph --until 14:00", "--from");
    refused("flamegraph --from -1h --until -2h", "is not before --until");
    refused("flamegraph --from -1h --to -2h", "is not before --until");
    refused("flamegraph --range -1h..-2h", "character 6: the end is not after the beginning");
    refused("flamegraph --range 5m --since 5m", "cannot be used with");
    refused("flamegraph --from 2999-01-01T00:00:00Z", "not in the past");
    refused("flamegraph --where host=\"a\"", "character 1: unknown label");
    refused("flamegraph --capture ../x", "not a capture id");
    refused("flamegraph --capture c1 --since 5m", "cannot be used with");
    refused("flamegraph --connect localhost:80", "expected unix:///PATH or http://HOST:PORT");
    refused("flamegraph --connect https://a:1", "TLS is not supported");
    refused("flamegraph --connect http://a", "with a port");
    refused("flamegraph --connect unix:run.sock", "must be absolute");
    refused("top --limit 0", "1..=1000");
    refused("top --output yaml", "use table or json");
    refused("top --by colour", "use frame, process, thread");
    refused("top --focus (", "unclosed group");
    refused("diff", "<BASE>");
    refused("diff a.folded", "2 values required");
    refused("diff --base a.folded", "--with");
    refused("diff a.folded b.svg", "only .folded and .json");
    refused("diff a.folded b.folded --fail-over much", "expected a percentage such as 5%");
    refused("diff a.folded b.folded --min-share 2%", "--fail-over");
    refused("diff a.folded b.folded -o x.png", "use .svg, .folded or .json");
    refused("diff a.folded b.folded --normalize cpu", "use total, time or work");
    refused("diff --base 1h.. --with 5m", "character 1: expected -1h, now");
    refused("report --output table", "use text, json or markdown");
    refused("watch --windows 0", "0");
    refused("capture start on-cpu", "off-cpu");
    refused("capture start off-cpu -d 11m", "must be between 1s and 10m");
    refused("capture stop", "<ID>");
    refused("capture show", "<ID>");
    refused("capture watch", "<ID>");
    refused("capture bundle ../x", "not a capture id");
    refused("status --color sometimes", "auto, always, never");
}

#[test]
fn record_defaults() {
    let host = record("");
    assert_eq!(
        (host.kind(), host.length(), host.frequency, host.min_block(), host.target()),
        (ProfileKind::OnCpu, Some(Duration::from_secs(10)), 99, Duration::from_millis(1), RecordTarget::Host)
    );
    assert_eq!(host.destinations(false), [Destination::Stdout(Format::Folded)]);
    let svg = OutputFile { path: "profile.svg".into(), format: Format::Svg };
    assert_eq!(host.destinations(true), [Destination::File(svg.clone())]);

    let command = record("--wall -- make -p 1");
    let arguments = [OsString::from("-p"), OsString::from("1")];
    assert_eq!(command.target(), RecordTarget::Command(&"make".into(), &arguments));
    assert_eq!((command.kind(), command.length()), (ProfileKind::Wall, None));
    // The command's stdout is not ours to write to.
    assert_eq!(command.destinations(false), [Destination::File(svg)]);
}

#[test]
fn record_values() {
    let args = record("--off-cpu -d 1m30s -p 1,2 -p 3 -o a.svg -o b.pb.gz -o c.speedscope.json");
    assert_eq!(args.target(), RecordTarget::Pids(&[1, 2, 3]));
    assert_eq!((args.length(), args.min_block()), (Some(Duration::from_secs(90)), Duration::ZERO));
    let formats: Vec<Format> = args.destinations(true).iter().map(Destination::format).collect();
    assert_eq!(formats, [Format::Svg, Format::Pprof, Format::Speedscope]);
    assert_eq!(record("--off-cpu --min-block 5ms").min_block(), Duration::from_millis(5));
    assert_eq!(record("--cgroup /a").target(), RecordTarget::Cgroup(Path::new("/a")));
    assert_eq!(record("--format pprof").destinations(true), [Destination::Stdout(Format::Pprof)]);
}

#[test]
fn flags_of_the_daemon_become_settings() {
    let line = "daemon --config a.toml --listen unix:///a --listen 127.0.0.1:1 --on-cpu-frequency 49";
    let Command::Daemon(args) = parse(line).expect("a valid line").command else { panic!("not daemon") };
    assert_eq!(args.config.as_deref(), Some(Path::new("a.toml")));
    let expected = [("listen", "unix:///a,127.0.0.1:1".to_owned()), ("on_cpu.frequency", "49".to_owned())];
    assert_eq!(args.settings(), expected);
}

#[test]
fn endpoints() {
    let shown = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string());
    assert_eq!(shown("unix:/a/b").as_deref(), Ok("unix:///a/b"));
    assert_eq!(shown("http://[::1]:80/").as_deref(), Ok("http://[::1]:80"));
    assert!(shown("http://user@host:80").is_err());
    assert!(shown("http://host:80/path").is_err());
}

#[test]
fn color_is_known_before_parsing() {
    let of = |line: &str| color_of(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
    assert_eq!(of("profiler --color never top"), ColorChoice::Never);
    assert_eq!(of("profiler top --color=always"), ColorChoice::Always);
    assert_eq!(of("profiler record -- ls --color=always"), ColorChoice::Auto);
    assert_eq!(of("profiler --color"), ColorChoice::Auto);
}

#[test]
fn exit_codes() {
    let all = [Exit::Ok, Exit::Failure, Exit::Usage, Exit::Unreachable, Exit::NoData, Exit::Refused];
    assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn heat_maps_want_an_output_and_cells_of_whole_milliseconds() {
    let parsed = parse("heatmap --since 2m -o a.svg").expect("a valid line");
    assert!(matches!(parsed.command, Command::Heatmap(HeatmapArgs { rows: 50, .. })));
    refused("heatmap --since 2m", "--output");
    refused("heatmap -o a.png", ".svg or .json");
    refused("heatmap -o a.svg --format json", "cannot be used with");
    refused("heatmap --format svg --rows 3", "divisor of 1000");
    refused("heatmap --format svg --rows 200", "divisor of 1000");
}

/// Compares each command's `--help` with its blessed text; `BLESS=1` writes them.
#[test]
fn help_is_as_blessed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/golden");
    let commands = [
        "",
        "record",
        "daemon",
        "check",
        "flamegraph",
        "heatmap",
        "top",
        "list",
        "diff",
        "report",
        "watch",
        "status",
        "capture",
        "capture start",
        "capture start off-cpu",
        "capture list",
        "capture show",
        "capture watch",
        "capture bundle",
        "capture stop",
    ];
    for command in commands {
        let line = format!("profiler {command} --help");
        // The width of the terminal the tests run in must not matter.
        let tree = Cli::command().term_width(100);
        let shown = Cli::parse_by(tree, line.split_whitespace().map(OsString::from)).expect_err("help");
        assert_eq!(shown.exit_code(), 0, "{command}");
        let text = shown.to_string();
        assert!(text.contains("\nExit codes:\n  0  ok\n"), "{command} does not list the exit codes");
        let name = if command.is_empty() { "profiler".to_owned() } else { command.replace(' ', "-") };
        let path = folder.join(format!("{name}.txt"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(&path, &text).expect("written");
        }
        let blessed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, blessed, "{command}: run with BLESS=1 if the change is meant");
    }
}
