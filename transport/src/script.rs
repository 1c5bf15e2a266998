//! A small program for the other side's `sh`, made of steps.

use std::{ffi::OsString, fmt::Write as _};

use crate::{RemoteCommand, sanitize_line};

mod stripes;

pub use stripes::Stripes;

/// What begins the line of findings. Fields follow, each after a tab, and at the end a tab and a dot.
const MARK: &str = "ncc-found";

/// The line that a script writes to stderr before anything else: what came before is the login's (ssh's notices, a banner, the
/// start-up files of the login shell), and never the reason for which a program ended. [`StderrTail`](crate::StderrTail) takes
/// it out.
pub(crate) const STARTED: &str = "ncc-started";

/// The line that makes a script go on which has [passed over](Conversation::BeginsAnew) what it was sent.
pub const RESUME: &str = "ncc-resume";

/// How much of a line of findings is looked at; a host that says more says nothing that was asked for.
const LONGEST_LINE: usize = 16 * 1024;

/// The functions that search. They and everything that is added to them hold no single quote, backslash, exclamation mark or
/// newline: then one pair of single quotes carries the script through sh, bash, zsh, ksh, fish, csh and tcsh alike. All that a
/// caller says comes as an argument, never as text of the script. stdin belongs to the program that is run at the end: nothing
/// before it may read from there.
///
/// `try FILE` succeeds if that is a program, and it runs if `k` is set; `look k PLACE...` leaves the first such file in `r`, its
/// version in `v`, the places in `t` and what was wrong with programs that did not run in `w`. Only statuses above 125 say that
/// a program did not run (the loader's, a signal's): one that knows no `--version` does.
const LOOK: &str = concat!(
    r#"try() { [ -f "$1" ] && [ -x "$1" ] || return 1; "#,
    r#"if [ "$k" ]; then v=$("$1" --version </dev/null 2>/dev/null); s=$?; "#,
    r#"if [ $s -gt 125 ]; then w="$w${w:+; }$1 ends with status $s: "#,
    r#"$("$1" --version </dev/null 2>&1 | tail -n 1)"; return 1; fi; fi; r=$1; }; "#,
    r#"path() { o=$IFS; IFS=:; set -- "$1" $PATH; IFS=$o; n=$1; shift; "#,
    r#"for d; do if [ "$d" ]; then try "$d/$n" && return; fi; done; return 1; }; "#,
    r#"look() { k=$1; shift; r=; v=; w=; t=; for c; do "#,
    r#"case $c in "~/"*) c=$HOME/${c#??};; esac; "#,
    r#"case $c in *%u*) c=${c%%"%u"*}${USER:-$(id -un 2>/dev/null)}${c#*"%u"};; esac; "#,
    r#"t="$t${t:+, }$c"; "#,
    r#"case $c in */*) try "$c" && return;; *) path "$c" && return;; esac; done; }; "#,
);

/// A program to look for on the host, and the places where it may be.
///
/// ```
/// use ncc_transport::Program;
///
/// let nix_store = Program::new("nix-store")
///     .places(["nix-store", "~/.nix-profile/bin/nix-store", "/etc/profiles/per-user/%u/bin/nix-store"])
///     .must_run();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    name: String,
    places: Vec<OsString>,
    must_run: bool,
    must_know: Option<Knowledge>,
}

/// What a program must know, and how it is found out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Knowledge {
    argument: OsString,
    versions: Vec<OsString>,
    complaints: Vec<OsString>,
}

impl Program {
    /// A program by its name, which is looked for on the host's `PATH`.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { places: vec![name.clone().into()], name, must_run: false, must_know: None }
    }

    /// Where to look, in this order. A place without a slash is looked up in each directory of the host's `PATH`; in one with
    /// a slash, a leading `~/` stands for the remote user's home directory and the first `%u` for the remote user's name.
    #[must_use]
    pub fn places(mut self, places: impl IntoIterator<Item: Into<OsString>>) -> Self {
        self.places = places.into_iter().map(Into::into).collect();
        self
    }

    /// Only a file that can be run counts: it is started once with `--version`, which costs its start. A file that is there but
    /// lacks a library, or is for another processor, does not hide a good one in a later place; and the version is known.
    #[must_use]
    pub fn must_run(mut self) -> Self {
        self.must_run = true;
        self
    }

    /// Only a program that [runs](Self::must_run) and knows this argument counts. One whose version is like none of `versions` is
    /// started with that argument alone and an empty input; if what it says is like one of `complaints`, it does not know it. Both
    /// are patterns of the shell.
    #[must_use]
    pub fn must_know(
        self,
        argument: impl Into<OsString>,
        versions: impl IntoIterator<Item: Into<OsString>>,
        complaints: impl IntoIterator<Item: Into<OsString>>,
    ) -> Self {
        let knowledge = Knowledge {
            argument: argument.into(),
            versions: versions.into_iter().map(Into::into).collect(),
            complaints: complaints.into_iter().map(Into::into).collect(),
        };
        Self { must_know: Some(knowledge), ..self.must_run() }
    }
}

/// What becomes of what was sent to a script in the belief that it becomes its first choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conversation {
    /// It is for this program as well.
    Continues,
    /// It is passed over, up to a line that is [`RESUME`].
    BeginsAnew,
}

/// Another program that a script may become.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Alternative {
    program: Program,
    args: Vec<OsString>,
    conversation: Conversation,
}

/// Something about the host that a script can measure on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fact {
    /// How many processors there are: [`Findings::processors`].
    Processors,
    /// Kernel and machine: [`Findings::system`].
    System,
    /// How much an unprivileged user may still write to the file system of this directory: [`Findings::free_bytes`].
    FreeSpace(OsString),
}

/// As whom a program runs on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Account {
    /// As the user who logs in.
    #[default]
    LoginUser,
    /// As root through `sudo -n`, which never asks for a password: there is no terminal to ask on. The search is the login
    /// user's; sudo is given the file that was found, so that a rule for that program alone is enough.
    Sudo,
}

/// What the program at the end of a script does with the script's stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Input {
    /// Reads it.
    #[default]
    Stdin,
    /// Gets each word of it as an argument, through `xargs`: a list that is too long for a command line.
    Arguments,
}

/// Which stream of the program at the end of a script goes through a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilteredStream {
    /// What comes to the host's program has gone through the filter.
    Stdin,
    /// What the host's program writes goes through the filter.
    Stdout,
}

/// One program that a stream may go through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Filter {
    stream: FilteredStream,
    name: String,
    args: Vec<OsString>,
}

/// A small POSIX program to be run on a host, as data: what to look for, what to report, what to become.
///
/// All of it happens within the one start of a command, so that looking for a program costs no round trip. It needs a POSIX `sh`
/// on the host, whatever the login shell is.
///
/// ```
/// use ncc_transport::{Fact, Findings, Program, RemoteScript};
///
/// let script = RemoteScript::new()
///     .find(Program::new("nix-store").places(["nix-store", "/run/current-system/sw/bin/nix-store"]).must_run())
///     .find(Program::new("zstd"))
///     .measure(Fact::Processors)
///     .report()
///     .run("nix-store", ["--serve", "--write"]);
/// assert!(script.command().to_shell().to_string_lossy().starts_with("exec sh -c '"));
///
/// // What comes on stdout before the program's own words, after whatever the login shell prints:
/// let noise = b"Welcome!\nncc-found\tnix-store=/usr/bin/nix-store\tnix-store.version=nix-store (Nix) 2.18.1\tcpus=4\t.\n";
/// let findings = Findings::parse(noise).unwrap();
/// assert_eq!(findings.program("nix-store"), Some("/usr/bin/nix-store"));
/// assert_eq!((findings.program("zstd"), findings.processors()), (None, Some(4)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RemoteScript {
    programs: Vec<Program>,
    facts: Vec<Fact>,
    report: bool,
    filters: Vec<Filter>,
    striped: Option<FilteredStream>,
    run: Option<(String, Vec<OsString>)>,
    alternatives: Vec<Alternative>,
    account: Account,
    input: Input,
}

impl RemoteScript {
    /// A script that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks for a program. It need not be there, unless it is what is [run](Self::run).
    #[must_use]
    pub fn find(mut self, program: Program) -> Self {
        self.programs.push(program);
        self
    }

    /// Measures something, for the report.
    #[must_use]
    pub fn measure(mut self, fact: Fact) -> Self {
        self.facts.push(fact);
        self
    }

    /// Prints what was found as one line on stdout, before anything else that the script or its program prints.
    /// [`Findings::parse`] reads it.
    #[must_use]
    pub fn report(mut self) -> Self {
        self.report = true;
        self
    }

    /// Sends a stream of what is [run](Self::run) through a program that was [looked for](Self::find). Of several filters the
    /// first whose program is there is used; where none is, there is no filter. [`report`](Self::report) tells which are there.
    ///
    /// The status is that of the program that is run, whatever became of the filter. Its stdin ends early where a filter fails.
    #[must_use]
    pub fn filter(
        mut self,
        stream: FilteredStream,
        program: impl Into<String>,
        args: impl IntoIterator<Item: Into<OsString>>,
    ) -> Self {
        let (name, args) = (program.into(), args.into_iter().map(Into::into).collect());
        self.filters.push(Filter { stream, name, args });
        self
    }

    /// Makes room for a stream of what is [run](Self::run) to be carried by several commands of the same host; a
    /// [filter](Self::filter) of that stream is between the program and them. Where the script [reports](Self::report) that
    /// there is [room](Findings::stripes), it waits for a line that says [which there are](Stripes::chosen), and goes on without if that is none.
    ///
    /// The status is that of the program that is run, whatever became of the stripes.
    #[must_use]
    pub fn striped(mut self, stream: FilteredStream) -> Self {
        self.striped = Some(stream);
        self
    }

    /// Becomes this program at the end, with these arguments. The name is that of a program that was [looked for](Self::find);
    /// any other is started by its name.
    ///
    /// Where it was looked for and is not there, the script says on stderr in one line where it looked, and ends with status 127;
    /// where it is there and none of the files runs, it says what was wrong with each, and ends with 126.
    #[must_use]
    pub fn run(mut self, program: impl Into<String>, args: impl IntoIterator<Item: Into<OsString>>) -> Self {
        self.run = Some((program.into(), args.into_iter().map(Into::into).collect()));
        self
    }

    /// Becomes this program where it can become none of those before: they are not there, or do not run, or do not
    /// [know](Program::must_know) what they have to. It says so first in a line on stdout: [`Findings::became`].
    #[must_use]
    pub fn or_run(
        mut self,
        program: Program,
        args: impl IntoIterator<Item: Into<OsString>>,
        conversation: Conversation,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        self.alternatives.push(Alternative { program, args, conversation });
        self
    }

    /// As whom the program is run.
    #[must_use]
    pub fn account(mut self, account: Account) -> Self {
        self.account = account;
        self
    }

    /// What the program does with stdin.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// The command that carries the script to the host.
    pub fn command(&self) -> RemoteCommand {
        let mut writer = Writer::new(if self.programs.is_empty() { "" } else { LOOK });
        for (index, program) in self.programs.iter().enumerate() {
            writer.find(index, program);
        }
        if self.striped.is_some() {
            writer.push(format_args!("{}", stripes::prepare()));
        }
        if self.report {
            self.write_report(&mut writer);
        }
        if let Some(run) = &self.run {
            self.write_run(run, &mut writer);
        }
        // What messages begin with.
        let name = self.run.as_ref().map_or("sh", |(name, _)| name.as_str());
        let script: [OsString; 3] = ["-c".into(), writer.script.into(), name.into()];
        RemoteCommand::in_place_of_the_shell("sh").args(script).args(writer.words)
    }

    fn write_report(&self, writer: &mut Writer) {
        for fact in &self.facts {
            writer.measure(fact);
        }
        writer.push(format_args!("printf %s \"{MARK}"));
        for (index, program) in self.programs.iter().enumerate() {
            // A name may hold anything: it is an argument too.
            let name = writer.word(&program.name);
            writer.push(format_args!("\t{name}=$p{index}\t{name}.version=$v{index}"));
        }
        for fact in &self.facts {
            let key = fact.key();
            writer.push(format_args!("\t{key}=${}", fact.variable()));
        }
        if self.striped.is_some() {
            writer.push(format_args!("\tstripes=$at"));
        }
        writer.push(format_args!("\t.\"; echo; "));
    }

    fn write_run(&self, (name, args): &(String, Vec<OsString>), writer: &mut Writer) {
        if let Some(index) = self.index_of(name) {
            writer.complain(index, name);
            self.write_alternatives(writer, index);
            writer.insist(index);
        }
        let run = self.as_account(&self.starting(name, args, writer));
        if let Some(stream) = self.striped {
            writer.push(format_args!("{}", stripes::begin(stream)));
            for Filter { name, args, .. } in self.filters.iter().filter(|filter| filter.stream == stream) {
                let Some(index) = self.index_of(name) else { continue };
                let filter = self.starting(name, args, writer);
                let piped = stripes::run(stream, &run, Some(&filter));
                writer.push(format_args!("if [ \"$p{index}\" ]; then {piped}fi; "));
            }
            writer.push(format_args!("{}{}", stripes::run(stream, &run, None), stripes::end()));
        }
        for Filter { stream, name, args } in &self.filters {
            let Some(index) = self.index_of(name) else { continue };
            let filter = self.starting(name, args, writer);
            // A pipeline has the status of its last program.
            let piped = match stream {
                FilteredStream::Stdin => format!("{filter} | exec {run}; exit"),
                // Stdout is 3, and 4 leads the status past the filter.
                FilteredStream::Stdout => format!(
                    "exec 3>&1; s=$( {{ {{ {run} 3>&- 4>&-; echo $? >&4; }} | {filter} >&3 4>&-; }} 4>&1 ); exit $s"
                ),
            };
            writer.push(format_args!("if [ \"$p{index}\" ]; then {piped}; fi; "));
        }
        writer.push(format_args!("exec {run}"));
    }

    /// The words that run these.
    fn as_account(&self, words: &str) -> String {
        let sudo = if self.account == Account::Sudo { "sudo -n " } else { "" };
        let xargs = if self.input == Input::Arguments { "xargs " } else { "" };
        format!("{xargs}{sudo}{words}")
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.programs.iter().position(|program| program.name == name)
    }

    /// What is become where the program of this number is not to be had.
    fn write_alternatives(&self, writer: &mut Writer, first: usize) {
        if self.alternatives.is_empty() {
            return;
        }
        writer.push(format_args!("if [ -z \"$p{first}\" ]; then "));
        for (index, Alternative { program, args, conversation }) in self.alternatives.iter().enumerate() {
            let index = index + self.programs.len();
            writer.find(index, program);
            let name = writer.word(&program.name);
            writer.push(format_args!(
                "if [ \"$p{index}\" ]; then printf %s \"{MARK}\tbecame={name}\twhy=$m\t{name}=$p{index}\t{name}.version=$v{index}\t.\"; \
                 echo; "
            ));
            if *conversation == Conversation::BeginsAnew {
                writer.push(format_args!(
                    "while :; do IFS= read -r l || exit; case $l in {RESUME}) break;; esac; done; "
                ));
            }
            let words = writer.words(&format!("\"$p{index}\""), args);
            let run = self.as_account(&words);
            writer.push(format_args!(
                "exec {run}; fi; if [ \"$w{index}\" ]; then m=\"$m; {name}: cannot be run: $w{index}\"; else m=\"$m; no {name}\"; fi; "
            ));
        }
        writer.push(format_args!("fi; "));
    }

    /// The words that start a program.
    fn starting(&self, name: &str, args: &[OsString], writer: &mut Writer) -> String {
        let program = match self.index_of(name) {
            Some(index) => format!("\"$p{index}\""),
            None => format!("\"{}\"", writer.word(name)),
        };
        writer.words(&program, args)
    }
}

impl Fact {
    fn key(&self) -> &'static str {
        match self {
            Self::Processors => "cpus",
            Self::System => "system",
            Self::FreeSpace(_) => "free-kib",
        }
    }

    fn variable(&self) -> &'static str {
        match self {
            Self::Processors => "cpus",
            Self::System => "system",
            Self::FreeSpace(_) => "free",
        }
    }
}

/// The text of a script and the words that it refers to by number.
struct Writer {
    script: String,
    words: Vec<OsString>,
}

impl Writer {
    fn new(functions: &str) -> Self {
        Self { script: format!("echo {STARTED} >&2; set -f; {functions}"), words: Vec::new() }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.script.write_fmt(text);
    }

    /// Takes a word; returns how the script refers to it.
    fn word(&mut self, word: impl Into<OsString>) -> String {
        self.words.push(word.into());
        format!("${{{}}}", self.words.len())
    }

    fn find(&mut self, index: usize, program: &Program) {
        let mut call = String::from(if program.must_run { "look x" } else { "look \"\"" });
        for place in &program.places {
            let _ = write!(call, " \"{}\"", self.word(place));
        }
        // Unquoted, so that it becomes one line with single blanks.
        self.push(format_args!("{call}; p{index}=$r v{index}=$(echo $v) w{index}=$w t{index}=$t; "));
        if let Some(Knowledge { argument, versions, complaints }) = &program.must_know {
            let argument = self.word(argument);
            let mut either = |patterns: &[OsString]| {
                let words: Vec<String> = patterns.iter().map(|pattern| self.word(pattern)).collect();
                // Unquoted, so that they stay patterns. None would be a syntax error.
                if words.is_empty() { "\"\"".to_owned() } else { words.join("|") }
            };
            let (versions, complaints) = (either(versions), either(complaints));
            self.push(format_args!(
                "if [ \"$p{index}\" ]; then case $v{index} in {versions}) ;; *) \
                 case $(\"$p{index}\" \"{argument}\" </dev/null 2>&1) in {complaints}) \
                 w{index}=\"$p{index} does not know {argument}\"; p{index}=;; esac;; esac; fi; "
            ));
        }
    }

    /// `program`, and arguments behind it.
    fn words(&mut self, program: &str, args: &[OsString]) -> String {
        let mut words = program.to_owned();
        for arg in args {
            let _ = write!(words, " \"{}\"", self.word(arg));
        }
        words
    }

    /// Leaves in `m` what there is to say of a program that is not to be had, and in `e` the status to end with.
    fn complain(&mut self, index: usize, name: &str) {
        let name = self.word(name);
        self.push(format_args!(
            "if [ \"$w{index}\" ]; then m=\"{name}: cannot be run: $w{index}\" e=126; \
             else m=\"{name}: command not found; looked for: $t{index}\" e=127; fi; "
        ));
    }

    fn insist(&mut self, index: usize) {
        self.push(format_args!("if [ -z \"$p{index}\" ]; then echo \"$m\" >&2; exit $e; fi; "));
    }

    fn measure(&mut self, fact: &Fact) {
        match fact {
            Fact::Processors => self.push(format_args!(
                "cpus=$(nproc </dev/null 2>/dev/null || getconf _NPROCESSORS_ONLN </dev/null 2>/dev/null); "
            )),
            Fact::System => self.push(format_args!("system=$(uname -sm </dev/null 2>/dev/null); ")),
            Fact::FreeSpace(directory) => {
                let directory = self.word(directory);
                // The second line of what POSIX promises: name, size, used, available.
                self.push(format_args!(
                    "free=$(df -Pk \"{directory}\" </dev/null 2>/dev/null | {{ read a; read a b c d e; echo $d; }}); "
                ));
            }
        }
    }
}

/// What a [script](RemoteScript) found on the host, as it [reported](RemoteScript::report) it.
///
/// These are the host's words: it may lie, and a value is no more than a text without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings(Vec<(String, String)>);

impl Findings {
    /// Reads the report in what came on stdout before the program's greeting, among whatever the login shell printed there.
    /// `None` if there is none, whole and at most 16 KiB long: the host did not let the script pass.
    pub fn parse(noise: &[u8]) -> Option<Self> {
        Self::find(noise).map(|(findings, _)| findings)
    }

    /// The same, and where in `noise` the report ends.
    pub fn find(noise: &[u8]) -> Option<(Self, usize)> {
        let mark = format!("{MARK}\t");
        // The last one: a shell that shows what it runs shows the script first.
        let start = noise.windows(mark.len()).rposition(|window| window == mark.as_bytes())?;
        let line = noise.get(start + mark.len()..)?;
        let end = line.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n')?;
        let line = line.get(..end)?;
        let fields = line.strip_suffix(b"\r").unwrap_or(line).strip_suffix(b"\t.")?;
        let mut findings = Self::default();
        for field in fields.split(|&byte| byte == b'\t') {
            let field = sanitize_line(field);
            if let Some((key, value)) = field.split_once('=')
                && !value.is_empty()
            {
                findings.0.push((key.to_owned(), value.to_owned()));
            }
        }
        Some((findings, start + mark.len() + end + 1))
    }

    /// Where the report ends in what has come on stdout so far, if all of it is there: behind that comes what the program
    /// writes. Unlike [`parse`](Self::parse) this is for a program whose own words cannot be told from noise.
    pub fn end_in(noise: &[u8]) -> Option<usize> {
        let mut end = 0;
        noise.split_inclusive(|&byte| byte == b'\n').find_map(|line| {
            end += line.len();
            let text = line.strip_suffix(b"\n")?;
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            // A shell that shows what it runs shows the script too, in which no report ends.
            let is_whole = text.ends_with(b"\t.") && memmem(text, MARK.as_bytes());
            is_whole.then_some(end)
        })
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The file that was found for the program of this name.
    pub fn program(&self, name: &str) -> Option<&str> {
        self.value(name)
    }

    /// What that program answered to `--version`, if it had to prove that it runs.
    pub fn version(&self, name: &str) -> Option<&str> {
        self.value(&format!("{name}.version"))
    }

    /// The name of the program that the script became in the place of its first choice, and why.
    pub fn became(&self) -> Option<(&str, &str)> {
        Some((self.value("became")?, self.value("why").unwrap_or_default()))
    }

    /// The number of processors.
    pub fn processors(&self) -> Option<u32> {
        self.value("cpus")?.parse().ok().filter(|&count| count > 0)
    }

    /// What `uname -sm` says: `Linux x86_64`.
    pub fn system(&self) -> Option<&str> {
        self.value("system")
    }

    /// The free space that was asked for, in bytes.
    pub fn free_bytes(&self) -> Option<u64> {
        self.value("free-kib")?.parse::<u64>().ok()?.checked_mul(1024)
    }
}

fn memmem(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
