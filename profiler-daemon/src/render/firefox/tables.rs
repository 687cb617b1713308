//! The tables that the threads of a Firefox profile share: strings, functions, stacks, libraries.

use std::borrow::Cow;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;
use serde::Serialize;

use super::name;
use crate::model::{Activity, Frame, FrameKind, Module, Wait};

/// Number of categories.
pub(super) const CATEGORIES: usize = 7;

/// A category and a subcategory, by their places in [`categories`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Category(u32, u32);

impl Category {
    pub(super) const OTHER: Self = Self(0, 0);
    const USER: Self = Self(1, 0);
    const USER_INLINED: Self = Self(1, 1);
    const JIT: Self = Self(2, 0);
    const KERNEL: Self = Self(3, 0);
    const KERNEL_INLINED: Self = Self(3, 1);
    const BLOCKED: u32 = 4;
    const RUN_QUEUE: Self = Self(5, 1);
    const PREEMPTED: Self = Self(5, 2);
    pub(super) const WAKER: Self = Self(6, 0);
}

#[derive(Serialize)]
pub(super) struct CategoryRow {
    name: &'static str,
    /// One of the reader's own colours.
    color: &'static str,
    /// The first one must be "Other".
    subcategories: Vec<&'static str>,
}

/// What colours say. The first one that is grey is the reader's default.
pub(super) fn categories() -> [CategoryRow; CATEGORIES] {
    const OTHER: &str = "Other";
    let row = |name, color, parts: &[&'static str]| CategoryRow {
        name,
        color,
        subcategories: [OTHER].iter().chain(parts).copied().collect(),
    };
    let reasons: Vec<&str> = Wait::ALL.iter().skip(1).map(|wait| wait.name()).collect();
    [
        row(OTHER, "grey", &[]),
        row("User", "yellow", &["Inlined"]),
        row("JIT", "green", &[]),
        row("Kernel", "orange", &["Inlined"]),
        row("Blocked", "blue", &reasons),
        row("Waiting for a CPU", "magenta", &["Run queue", "Preempted"]),
        row("Waker", "lightblue", &[]),
    ]
}

/// That of the pseudo frame of an activity.
pub(super) fn category(activity: Activity) -> Category {
    match activity {
        Activity::OnCpu => Category::OTHER,
        // `Wait::Other` is the first of all waits.
        Activity::Blocked(wait) => {
            let place = Wait::ALL.iter().position(|other| *other == wait);
            Category(Category::BLOCKED, place.unwrap_or_default() as u32)
        }
        Activity::RunQueue => Category::RUN_QUEUE,
        Activity::Preempted => Category::PREEMPTED,
    }
}

/// A function, which is also a frame: where in it a thread was is not kept. Its category is part of it,
/// so that no function of a program is one with a pseudo frame or with one of the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Function {
    name: u32,
    category: Category,
    library: Option<u32>,
    source: Option<u32>,
    line: Option<u32>,
}

/// The tables while they grow. Indices are those of first use.
#[derive(Default)]
pub(super) struct Tables<'a> {
    // Programs choose the texts.
    strings: IndexSet<Cow<'a, str>, ahash::RandomState>,
    libraries: IndexSet<&'a Module, ahash::RandomState>,
    /// Strings.
    sources: IndexSet<u32, FxBuildHasher>,
    functions: IndexSet<Function, FxBuildHasher>,
    /// The stack it goes on from, and the frame.
    stacks: IndexSet<(Option<u32>, u32), FxBuildHasher>,
}

impl<'a> Tables<'a> {
    pub(super) fn frame(&mut self, frame: &'a Frame) -> u32 {
        let category = match frame.kind {
            FrameKind::User => Category::USER,
            FrameKind::UserInlined => Category::USER_INLINED,
            FrameKind::Jit => Category::JIT,
            FrameKind::Kernel => Category::KERNEL,
            FrameKind::KernelInlined => Category::KERNEL_INLINED,
        };
        let name = match name::clean(&frame.name) {
            empty if empty.is_empty() => Cow::Borrowed("[unnamed]"),
            name => name,
        };
        self.function(name, category, frame)
    }

    /// A frame of who ended a wait.
    pub(super) fn waker(&mut self, frame: &'a Frame) -> u32 {
        self.function(name::waker_frame(frame).into(), Category::WAKER, frame)
    }

    /// A frame that is no code.
    pub(super) fn pseudo(&mut self, text: &str, category: Category) -> u32 {
        let name = self.string(text.to_owned().into());
        insert(&mut self.functions, Function { name, category, library: None, source: None, line: None })
    }

    fn function(&mut self, name: Cow<'a, str>, category: Category, frame: &'a Frame) -> u32 {
        let name = self.string(name);
        let source = frame.source.as_ref().map(|source| {
            let file = self.string(name::clean(&source.file));
            insert(&mut self.sources, file)
        });
        let line = frame.source.as_ref().map(|source| source.line).filter(|&line| line > 0);
        let library = frame.module.as_deref().map(|module| insert(&mut self.libraries, module));
        insert(&mut self.functions, Function { name, category, library, source, line })
    }

    /// The stack of these frames, root first; none for no frame.
    pub(super) fn stack(&mut self, frames: &[u32]) -> Option<u32> {
        frames.iter().fold(None, |prefix, &frame| Some(insert(&mut self.stacks, (prefix, frame))))
    }

    fn string(&mut self, text: Cow<'a, str>) -> u32 {
        insert(&mut self.strings, text)
    }

    /// The tables in the form of the format.
    pub(super) fn into_parts(mut self) -> (Shared, Vec<Library<'a>>) {
        let libraries: Vec<Library<'a>> = self.libraries.iter().map(|module| Library::of(module)).collect();
        let resource_names = libraries.iter().map(|library| self.string(library.name.clone())).collect();
        let (functions, stacks) = (&self.functions, &self.stacks);
        let (length, resources) = (functions.len(), libraries.len());
        let shared = Shared {
            stack_table: StackTable {
                length: stacks.len(),
                prefix: stacks.iter().map(|(prefix, _)| *prefix).collect(),
                frame: stacks.iter().map(|(_, frame)| *frame).collect(),
            },
            frame_table: FrameTable {
                length,
                address: vec![-1; length],
                inline_depth: vec![0; length],
                category: functions.iter().map(|function| function.category.0).collect(),
                subcategory: functions.iter().map(|function| function.category.1).collect(),
                func: (0..length).collect(),
                native_symbol: vec![(); length],
                inner_window_id: vec![0; length],
                line: vec![(); length],
                column: vec![(); length],
            },
            func_table: FuncTable {
                length,
                name: functions.iter().map(|function| function.name).collect(),
                is_js: vec![false; length],
                relevant_for_js: vec![false; length],
                resource: functions.iter().map(|function| function.library.map_or(-1, i64::from)).collect(),
                source: functions.iter().map(|function| function.source).collect(),
                line_number: functions.iter().map(|function| function.line).collect(),
                column_number: vec![(); length],
            },
            resource_table: ResourceTable {
                length: resources,
                lib: (0..resources).collect(),
                name: resource_names,
                host: vec![(); resources],
                r#type: vec![ResourceTable::LIBRARY; resources],
            },
            native_symbols: NativeSymbols::default(),
            sources: Sources {
                length: self.sources.len(),
                uuid: vec![(); self.sources.len()],
                filename: self.sources.iter().copied().collect(),
            },
            string_array: self.strings.into_iter().map(Cow::into_owned).collect(),
        };
        (shared, libraries)
    }
}

fn insert<T: std::hash::Hash + Eq, S: std::hash::BuildHasher>(set: &mut IndexSet<T, S>, value: T) -> u32 {
    set.insert_full(value).0 as u32
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shared {
    stack_table: StackTable,
    frame_table: FrameTable,
    func_table: FuncTable,
    resource_table: ResourceTable,
    native_symbols: NativeSymbols,
    sources: Sources,
    string_array: Vec<String>,
}

#[derive(Serialize)]
struct StackTable {
    length: usize,
    prefix: Vec<Option<u32>>,
    frame: Vec<u32>,
}

/// A row a function; columns of `()` are `null` all along.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FrameTable {
    length: usize,
    address: Vec<i32>,
    inline_depth: Vec<u32>,
    category: Vec<u32>,
    subcategory: Vec<u32>,
    func: Vec<usize>,
    native_symbol: Vec<()>,
    #[serde(rename = "innerWindowID")]
    inner_window_id: Vec<u32>,
    line: Vec<()>,
    column: Vec<()>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FuncTable {
    length: usize,
    name: Vec<u32>,
    #[serde(rename = "isJS")]
    is_js: Vec<bool>,
    #[serde(rename = "relevantForJS")]
    relevant_for_js: Vec<bool>,
    /// -1 where there is none.
    resource: Vec<i64>,
    source: Vec<Option<u32>>,
    /// Where the function begins.
    line_number: Vec<Option<u32>>,
    column_number: Vec<()>,
}

/// A row a library.
#[derive(Serialize)]
struct ResourceTable {
    length: usize,
    lib: Vec<usize>,
    name: Vec<u32>,
    host: Vec<()>,
    r#type: Vec<u32>,
}

impl ResourceTable {
    /// `ResourceType.Library`.
    const LIBRARY: u32 = 1;
}

/// None: names are known already.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct NativeSymbols {
    length: usize,
    lib_index: [(); 0],
    address: [(); 0],
    name: [(); 0],
    function_size: [(); 0],
}

#[derive(Serialize)]
struct Sources {
    length: usize,
    uuid: Vec<()>,
    filename: Vec<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Library<'a> {
    arch: &'static str,
    name: Cow<'a, str>,
    path: Cow<'a, str>,
    debug_name: Cow<'a, str>,
    debug_path: Cow<'a, str>,
    breakpad_id: String,
    /// The GNU build id.
    code_id: Option<Cow<'a, str>>,
}

impl<'a> Library<'a> {
    fn of(module: &'a Module) -> Self {
        let path = name::clean(&module.path);
        let name = match &path {
            Cow::Borrowed(path) => Cow::Borrowed(base(path)),
            Cow::Owned(path) => Cow::Owned(base(path).to_owned()),
        };
        Self {
            // Which machine it was recorded on is not kept.
            arch: "",
            debug_name: name.clone(),
            debug_path: path.clone(),
            name,
            path,
            breakpad_id: breakpad_id(module.build_id.as_deref().unwrap_or_default()),
            code_id: module.build_id.as_deref().map(name::clean),
        }
    }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Breakpad's name for a build id: its first 16 bytes as a GUID, of which the first three numbers are
/// little-endian, and an age of 0.
fn breakpad_id(build_id: &str) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let digits: Vec<char> = build_id.chars().filter(char::is_ascii_hexdigit).collect();
    let digit = |at: usize| digits.get(at).map_or('0', char::to_ascii_uppercase);
    let guid = ORDER.iter().flat_map(|byte| [digit(2 * byte), digit(2 * byte + 1)]);
    guid.chain(['0']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_is_in_the_list() {
        let rows = categories();
        assert_eq!(rows.iter().position(|row| row.color == "grey"), Some(0), "the default");
        let name = |Category(group, part)| {
            let row = &rows[group as usize];
            (row.name, row.subcategories[part as usize])
        };
        for wait in Wait::ALL {
            let expected = if wait == Wait::Other { "Other" } else { wait.name() };
            assert_eq!(name(category(Activity::Blocked(wait))), ("Blocked", expected));
        }
        assert_eq!(name(category(Activity::RunQueue)), ("Waiting for a CPU", "Run queue"));
        assert_eq!(name(category(Activity::Preempted)), ("Waiting for a CPU", "Preempted"));
        assert_eq!(name(Category::KERNEL_INLINED), ("Kernel", "Inlined"));
        assert_eq!((name(Category::JIT).0, name(Category::WAKER).0), ("JIT", "Waker"));
    }

    #[test]
    fn build_ids_become_breakpad_ids() {
        assert_eq!(
            breakpad_id("b8f4a2c611d0e9f3708192a3b4c5d6e7f8091a2b"),
            "C6A2F4B8D011F3E9708192A3B4C5D6E70"
        );
        assert_eq!(breakpad_id("00c0ffee"), "EEFFC0000000000000000000000000000");
        assert_eq!(breakpad_id("ü;"), "0".repeat(33));
    }
}
