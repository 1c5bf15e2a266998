//! Packing, unpacking and removing where the file system has something to say.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use ncc_nar::{
    CaseHack, Error, Metadata, Operation, OwnedBlocks, PackOptions, Packer, UnpackOptions, Unpacker, pack,
    remove, remove_at, size_of, unpack, unpack_at,
};
use rstest::rstest;

use crate::tree::{Tree, pack_options, unpack_options};

fn packed(path: &Path) -> Result<Vec<u8>, Error> {
    let mut nar = Vec::new();
    pack(path, &mut nar, &PackOptions::default()).map(|_| nar)
}

fn unpacked(nar: &[u8], target: &Path, options: &UnpackOptions) -> Result<u64, Error> {
    unpack(nar, target, options)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[rstest]
#[case(0o644, false)]
#[case(0o755, true)]
#[case(0o500, true)]
#[case(0o654, false)]
#[case(0o677, false)]
#[case(0o4711, true)]
fn only_the_owner_bit_makes_an_executable(#[case] mode: u32, #[case] executable: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode | 0o400)).unwrap();
    let expected = Tree::File { executable, contents: b"x".into() }.naive_nar();
    assert_eq!(packed(&path).unwrap(), expected);
    assert_eq!(size_of(&path, &PackOptions::default()).unwrap(), expected.len() as u64);
}

#[test]
fn hard_links_become_files_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a"), "same").unwrap();
    fs::hard_link(directory.path().join("a"), directory.path().join("b")).unwrap();
    let expected = Tree::directory([("a", Tree::file("same")), ("b", Tree::file("same"))]);
    assert_eq!(packed(directory.path()).unwrap(), expected.naive_nar());
}

#[test]
fn a_symlink_is_archived_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    symlink(directory.path(), &link).unwrap();
    let expected = Tree::Symlink(directory.path().as_os_str().as_bytes().into()).naive_nar();
    assert_eq!(packed(&link).unwrap(), expected);
}

#[test]
fn the_way_to_the_object_may_be_spelled_in_any_way() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::directory([("a", Tree::directory([("b", Tree::file("x"))]))]);
    tree.write_to(&directory.path().join("tree")).unwrap();
    symlink("tree", directory.path().join("link")).unwrap();
    let expected = Tree::directory([("b", Tree::file("x"))]).naive_nar();
    for spelling in ["tree/a", "tree/a/", "tree/a/.", "tree/../tree/a", "link/a"] {
        assert_eq!(packed(&directory.path().join(spelling)).unwrap(), expected, "{spelling}");
    }
    assert_eq!(packed(&directory.path().join("tree/a/..")).unwrap(), tree.naive_nar());
}

#[test]
fn a_fifo_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    let path = directory.path().join("d/fifo");
    make_fifo(&path);
    for outcome in [
        packed(directory.path()).map(drop),
        packed(&path).map(drop),
        size_of(&path, &PackOptions::default()).map(drop),
    ] {
        match outcome {
            Err(Error::Unsupported { path: named, file_type }) => {
                assert_eq!((named, file_type), (path.clone(), "a fifo"));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_socket_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = packed(directory.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("'{}' is a socket, which an archive cannot hold", path.display()));
}

#[test]
fn a_missing_path_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing");
    let error = packed(&path).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::NotFound));
    assert_eq!(error.to_string(), format!("cannot examine '{}'", path.display()));
    assert_eq!(remove(&path).unwrap_err().io_kind(), Some(ErrorKind::NotFound));
    let nar = Tree::file("").naive_nar();
    let error = unpacked(&nar, &path.join("target"), &UnpackOptions::default()).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::NotFound));
    assert_eq!(error.to_string(), format!("cannot open '{}'", path.display()));
}

/// Changes a file as soon as the archive reaches a size.
struct Meddler {
    path: PathBuf,
    new_size: u64,
    written: usize,
}

impl Write for Meddler {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written += bytes.len();
        fs::OpenOptions::new().write(true).open(&self.path)?.set_len(self.new_size)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[rstest]
#[case::grows_by_one(1_000_001, 1_000_001)]
#[case::grows(5_000_000, 1_000_001)]
#[case::shrinks(700_000, 700_000)]
fn a_file_that_changes_its_size_is_named(#[case] new_size: u64, #[case] reported: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, vec![1; 1_000_000]).unwrap();
    let mut writer = Meddler { path: path.clone(), new_size, written: 0 };
    match pack(directory.path(), &mut writer, &PackOptions::default()) {
        Err(Error::SizeChanged { path: named, expected, found }) => {
            assert_eq!((named, expected, found), (path, 1_000_000, reported));
            assert!(writer.written > 0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_says_it_is_empty_and_is_not_is_named() {
    match packed(Path::new("/proc/self/status")) {
        Err(Error::SizeChanged { expected: 0, found: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_device_is_recognisable() {
    let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let error = pack(directory.path(), &mut full, &PackOptions::default()).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::StorageFull));
}

#[rstest]
#[case::file(Tree::file("new"))]
#[case::symlink(Tree::Symlink(b"new".into()))]
#[case::directory(Tree::directory([("new", Tree::file(""))]))]
fn nothing_that_exists_is_touched(#[case] tree: Tree) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("file"), "old").unwrap();
    fs::create_dir(path("directory")).unwrap();
    symlink("file", path("link")).unwrap();
    symlink("outside", path("dangling")).unwrap();
    symlink("directory", path("link-to-directory")).unwrap();
    let before = packed(directory.path()).unwrap();
    for target in ["file", "directory", "link", "dangling", "link-to-directory"] {
        for metadata in [Metadata::Plain, Metadata::Canonical] {
            let options = unpack_options(|options| options.metadata = metadata);
            let error = unpacked(&tree.naive_nar(), &path(target), &options).unwrap_err();
            assert_eq!(error.io_kind(), Some(ErrorKind::AlreadyExists), "{target}");
            match error {
                Error::FileSystem { path: named, .. } => assert_eq!(named, path(target)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(packed(directory.path()).unwrap(), before);
}

#[test]
fn a_target_needs_a_name() {
    for target in ["/", "..", "a/.."] {
        let nar = Tree::file("").naive_nar();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        let target = directory.path().join(target);
        let outcome = unpacked(&nar, &target, &UnpackOptions::default());
        assert!(matches!(outcome, Err(Error::NoFileName { .. })), "{outcome:?}");
        assert!(matches!(remove(&target), Err(Error::NoFileName { .. })));
    }
}

#[test]
fn canonical_metadata_is_that_of_a_store() {
    let tree = Tree::directory([
        ("directory", Tree::directory([("file", Tree::file("x")), ("z", Tree::directory::<&str>([]))])),
        ("executable", Tree::File { executable: true, contents: b"x".into() }),
        ("file", Tree::file("")),
        ("link", Tree::Symlink(b"file".into())),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let options = unpack_options(|options| options.metadata = Metadata::Canonical);
    unpacked(&tree.naive_nar(), &target, &options).unwrap();
    for (name, mode) in [
        ("", 0o40555),
        ("directory", 0o40555),
        ("directory/file", 0o100_444),
        ("directory/z", 0o40555),
        ("executable", 0o100_555),
        ("file", 0o100_444),
        ("link", 0o120_777),
    ] {
        let metadata = target.join(name).symlink_metadata().unwrap();
        if !cfg!(target_os = "macos") || name != "link" {
            assert_eq!(metadata.mode(), mode, "{name}");
        }
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1, 0), "{name}");
        assert!(metadata.atime() > 1, "{name}: the access time is left alone");
    }
    for root in [Tree::file("x"), Tree::Symlink(b"x".into())] {
        remove(&target).unwrap();
        unpacked(&root.naive_nar(), &target, &options).unwrap();
        assert_eq!(target.symlink_metadata().unwrap().mtime(), 1);
    }
}

/// The `setgid` bit and the default ACL of the directory around must not show up inside a store path.
#[test]
#[cfg(target_os = "linux")]
fn canonical_objects_inherit_nothing() {
    use rustix::fs::{XattrFlags, llistxattr_query, setxattr};

    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o2755)).unwrap();
    // Version 2: owner rwx, user 12345 rwx, group r-x, mask rwx, others r-x.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, bits, id) in
        [(1_u16, 7_u16, u32::MAX), (2, 7, 12345), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes().iter().chain(&bits.to_le_bytes()).chain(&id.to_le_bytes()));
    }
    if let Err(error) = setxattr(directory.path(), "system.posix_acl_default", &acl, XattrFlags::empty()) {
        eprintln!("LEFT OUT: inherited ACLs: the file system has none ({error})");
        return;
    }
    let tree = Tree::directory([("d", Tree::directory([("f", Tree::file("x"))])), ("f", Tree::file("x"))]);
    let plain = directory.path().join("plain");
    unpacked(&tree.naive_nar(), &plain, &UnpackOptions::default()).unwrap();
    assert!(llistxattr_query(plain.join("f")).unwrap() > 0, "the test does not work");

    let target = directory.path().join("canonical");
    let options = unpack_options(|options| options.metadata = Metadata::Canonical);
    unpacked(&tree.naive_nar(), &target, &options).unwrap();
    for (name, mode) in [("", 0o40555), ("d", 0o40555), ("d/f", 0o100_444), ("f", 0o100_444)] {
        let path = target.join(name);
        assert_eq!(llistxattr_query(&path).unwrap(), 0, "{name}");
        assert_eq!(path.symlink_metadata().unwrap().mode(), mode, "{name}");
    }
    let file = directory.path().join("file");
    unpacked(&Tree::file("x").naive_nar(), &file, &options).unwrap();
    assert_eq!(llistxattr_query(&file).unwrap(), 0);

    let kept = directory.path().join("kept");
    let options = unpack_options(|options| {
        options.metadata = Metadata::Canonical;
        options.ignored_acls = vec!["system.posix_acl_access".into()];
    });
    unpacked(&Tree::file("x").naive_nar(), &kept, &options).unwrap();
    let mut names = [0_u8; 256];
    let length = rustix::fs::llistxattr(&kept, &mut names[..]).unwrap();
    assert_eq!(&names[..length], b"system.posix_acl_access\0");
}

fn case_tree() -> Tree {
    Tree::directory([
        ("A", Tree::file("1")),
        ("a", Tree::directory([("x", Tree::file("2"))])),
        ("b", Tree::file("3")),
    ])
}

#[test]
fn the_case_hack_renames_on_disk_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let nar = case_tree().naive_nar();
    unpacked(&nar, &target, &unpack_options(|options| options.case_hack = CaseHack::On)).unwrap();
    let mut names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["A", "a~nix~case~hack~1", "b"]);

    let mut repacked = Vec::new();
    pack(&target, &mut repacked, &pack_options(|options| options.case_hack = CaseHack::On)).unwrap();
    assert_eq!(repacked, nar);
    repacked.clear();
    pack(&target, &mut repacked, &pack_options(|options| options.case_hack = CaseHack::Off)).unwrap();
    assert_ne!(repacked, nar);
}

#[test]
fn a_collision_under_the_case_hack_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let tree = Tree::directory([
        ("A", Tree::file("")),
        ("a", Tree::file("")),
        ("a~nix~case~hack~1", Tree::file("")),
    ]);
    let options = unpack_options(|options| options.case_hack = CaseHack::On);
    let error = unpacked(&tree.naive_nar(), &target, &options).unwrap_err();
    match error {
        Error::CaseHackCollision { path, other } => {
            assert_eq!((path, other.to_str()), (target.join("a~nix~case~hack~1"), Some("a~nix~case~hack~1")));
        }
        other => panic!("{other:?}"),
    }

    remove(&target).unwrap();
    Tree::directory([("a", Tree::file("")), ("a~nix~case~hack~7", Tree::file(""))])
        .write_to(&target)
        .unwrap();
    match pack(&target, &mut Vec::new(), &pack_options(|options| options.case_hack = CaseHack::On)) {
        Err(Error::CaseHackCollision { path, other }) => {
            assert_eq!(path.parent(), Some(&*target));
            let mut names = [path.file_name().unwrap(), &other];
            names.sort();
            assert_eq!(names, ["a", "a~nix~case~hack~7"]);
        }
        other => panic!("{other:?}"),
    }
}

/// <https://github.com/NixOS/nixpkgs/issues/86432>: on a file system that ignores case or normalises
/// names, two names of an archive are one. A hard link that appears meanwhile looks the same.
#[test]
fn nixpkgs_86432_names_that_are_one_to_the_file_system_are_both_named() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let nar = case_tree().naive_nar();
    let mut unpacker = Unpacker::new(&target, &UnpackOptions::default()).unwrap();
    let first = nar.chunks(8).find(|block| {
        unpacker.push(block).unwrap();
        target.join("A").exists()
    });
    assert!(first.is_some());
    fs::hard_link(target.join("A"), target.join("a")).unwrap();
    let error = unpacker.push(&nar[usize::try_from(unpacker.position()).unwrap()..]).unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::AlreadyExists));
    assert_eq!(
        error.to_string(),
        format!("'{}' and 'A' are the same name to this file system", target.join("a").display())
    );
    assert!(matches!(unpacker.push(b""), Err(Error::FailedBefore)));
    assert!(matches!(unpacker.finish(), Err(Error::FailedBefore)));
}

#[test]
fn a_push_unpacker_takes_the_archive_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let mut stream = case_tree().naive_nar();
    let size = stream.len();
    stream.extend_from_slice(b"what follows");
    let mut unpacker = Unpacker::new(&target, &UnpackOptions::default()).unwrap();
    assert_eq!((unpacker.position(), unpacker.certain_bytes()), (0, 96));
    assert_eq!(unpacker.push(&stream[..200]).unwrap(), 200);
    assert_eq!((unpacker.position(), unpacker.is_complete()), (200, false));
    assert!(unpacker.certain_bytes() > 0 && unpacker.certain_bytes() <= size as u64 - 200);
    // As a writer, too.
    let error = unpacker.write_all(&stream[200..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriteZero);
    assert_eq!(
        (unpacker.position(), unpacker.is_complete(), unpacker.certain_bytes()),
        (size as u64, true, 0)
    );
    assert_eq!(unpacker.push(b"what follows").unwrap(), 0);
    assert_eq!(unpacker.finish().unwrap(), size as u64);
    assert_eq!(packed(&target).unwrap(), &stream[..size]);
}

#[test]
fn an_abandoned_unpacker_leaves_what_it_made_private() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let nar = Tree::directory([("a", Tree::file("contents")), ("b", Tree::file(""))]).naive_nar();
    let options = unpack_options(|options| options.metadata = Metadata::Canonical);
    let mut unpacker = Unpacker::new(&target, &options).unwrap();
    let contents = nar.windows(8).position(|window| window == b"contents").unwrap();
    let contents =
        contents + nar[contents + 8..].windows(8).position(|window| window == b"contents").unwrap() + 8;
    unpacker.push(&nar[..contents + 4]).unwrap();
    let error = unpacker.finish().unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::UnexpectedEof));
    assert_eq!(fs::read(target.join("a")).unwrap(), b"cont");
    assert_eq!(target.metadata().unwrap().mode(), 0o40700);
    assert_eq!(target.join("a").metadata().unwrap().mode(), 0o100_600);
    remove(&target).unwrap();
}

/// The typed error must not depend on whether the archive is pulled, pushed or written.
#[test]
fn a_push_unpacker_fails_with_types() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, "in the way").unwrap();
    let nar = case_tree().naive_nar();
    let error = Unpacker::new(&target, &UnpackOptions::default()).unwrap().push(&nar).unwrap_err();
    assert!(matches!(error, Error::FileSystem { operation: Operation::CreateDirectory, .. }), "{error:?}");
    let mut unpacker = Unpacker::new(&target, &UnpackOptions::default()).unwrap();
    let error = unpacker.write_all(&nar).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let error = error.downcast::<Error>().unwrap();
    assert!(matches!(error, Error::FileSystem { operation: Operation::CreateDirectory, .. }), "{error:?}");
}

#[test]
fn one_directory_handle_serves_for_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    fs::create_dir(&store).unwrap();
    let handle = fs::File::open(&store).unwrap();
    // Whoever moves the directory meanwhile does not change where things go.
    fs::rename(&store, directory.path().join("moved")).unwrap();
    let nar = case_tree().naive_nar();
    let options = unpack_options(|options| options.metadata = Metadata::Canonical);
    assert_eq!(unpack_at(&nar[..], &handle, "object", &options).unwrap(), nar.len() as u64);
    let mut packer = Packer::new(&PackOptions::default());
    let mut again = Vec::new();
    for _ in 0..2 {
        again.clear();
        assert_eq!(packer.pack_at(&handle, "object", &mut again).unwrap(), nar.len() as u64);
        assert!(again == nar);
    }
    let error = unpack_at(&nar[..], &handle, "object", &options).unwrap_err();
    assert_eq!(error.to_string(), "cannot create directory 'object'");
    for name in ["", ".", "..", "a/b", "/"] {
        let refused = [
            unpack_at(&nar[..], &handle, name, &options).map(drop),
            packer.pack_at(&handle, name, io::sink()).map(drop),
            remove_at(&handle, name),
        ];
        for outcome in refused {
            assert!(matches!(outcome, Err(Error::NoFileName { .. })), "{name}: {outcome:?}");
        }
    }
    remove_at(&handle, "object").unwrap();
    assert_eq!(fs::read_dir(directory.path().join("moved")).unwrap().count(), 0);
}

#[rstest]
#[case::tiny(1)]
#[case::odd(1000)]
#[case::usual(256 * 1024)]
fn blocks_are_handed_over_whole(#[case] block_size: usize) {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::directory([
        ("big", Tree::file((0..1_000_000_u32).map(|number| (number % 251) as u8).collect::<Vec<_>>())),
        ("link", Tree::Symlink(vec![b'x'; 4000])),
        ("small", Tree::file("x")),
    ]);
    let source = directory.path().join("source");
    tree.write_to(&source).unwrap();
    let nar = tree.naive_nar();
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut packer = Packer::new(&pack_options(|options| options.block_size = block_size));
    let sink = OwnedBlocks(|block| {
        blocks.push(block);
        Ok(Vec::new())
    });
    assert_eq!(packer.pack(&source, sink).unwrap(), nar.len() as u64);
    assert!(blocks.concat() == nar);
    assert!(blocks.iter().all(|block| !block.is_empty() && block.len() <= block_size.max(4096)));
}

#[test]
fn an_archive_of_known_size_is_one_block() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    case_tree().write_to(&source).unwrap();
    let nar = case_tree().naive_nar();
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut packer = Packer::new(&PackOptions::default());
    packer.set_block_size(nar.len());
    let sink = OwnedBlocks(|block| {
        blocks.push(block);
        Ok(Vec::new())
    });
    packer.pack(&source, sink).unwrap();
    assert_eq!(blocks, [nar]);
    assert_eq!(blocks[0].capacity(), blocks[0].len());
}

/// Where a directory is only in the archive, not on disk, what is open must still fit: run again with
/// few descriptors by the next test.
#[test]
fn deep_trees_need_neither_descriptors_nor_short_paths() {
    let directory = tempfile::tempdir().unwrap();
    let name = "d".repeat(200);
    let bottom = Tree::directory([("file", Tree::file("x")), ("link", Tree::Symlink(b"file".into()))]);
    let tree = (0..1000).fold(bottom, |tree, _| {
        Tree::directory([(name.clone(), tree), ("z-after".into(), Tree::file("on the way up"))])
    });
    let nar = tree.naive_nar();
    let target = directory.path().join("target");
    for metadata in [Metadata::Plain, Metadata::Canonical] {
        let options = unpack_options(|options| options.metadata = metadata);
        assert_eq!(unpacked(&nar, &target, &options).unwrap(), nar.len() as u64);
        assert!(packed(&target).unwrap() == nar);
        assert_eq!(size_of(&target, &PackOptions::default()).unwrap(), nar.len() as u64);
        let error =
            pack(&target, &mut io::sink(), &pack_options(|options| options.max_depth = 1000)).unwrap_err();
        assert!(matches!(error, Error::TooDeep { limit: 1000, .. }));
        remove(&target).unwrap();
        assert!(!exists(&target));
    }
}

#[test]
fn deep_trees_with_few_descriptors() {
    let outcome = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg("disk::deep_trees_need_neither_descriptors_nor_short_paths")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
fn the_depth_limit_holds_for_packing() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("1/2/3")).unwrap();
    let at =
        |depth| pack(directory.path(), &mut io::sink(), &pack_options(|options| options.max_depth = depth));
    assert!(at(3).is_ok());
    match at(2) {
        Err(Error::TooDeep { path, limit: 2 }) => assert_eq!(path, directory.path().join("1/2/3")),
        other => panic!("{other:?}"),
    }
    let mut nar = Vec::new();
    pack(directory.path(), &mut nar, &PackOptions::default()).unwrap();
    let target = directory.path().join("target");
    let unpack_at = |depth| unpack_options(|options| options.decode.max_depth = depth);
    assert!(unpacked(&nar, &target, &unpack_at(2)).is_err());
    remove(&target).unwrap();
    assert!(unpacked(&nar, &target, &unpack_at(3)).is_ok());
}

#[test]
fn remove_does_not_follow_links() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    Tree::directory([("kept", Tree::file("x"))]).write_to(&outside).unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink(&outside, tree.join("link")).unwrap();
    symlink(outside.join("kept"), tree.join("file-link")).unwrap();
    make_fifo(&tree.join("fifo"));
    remove(&tree).unwrap();
    assert!(!exists(&tree));
    symlink(&outside, &tree).unwrap();
    remove(&tree).unwrap();
    assert!(!exists(&tree));
    assert!(exists(&outside.join("kept")));
}

/// Root may do everything, so this test runs once more as somebody else if it can.
#[test]
fn remove_deletes_read_only_directories() {
    let directory = tempfile::tempdir().unwrap();
    let tree = Tree::directory([
        (
            "locked",
            Tree::directory([("file", Tree::file("x")), ("sub", Tree::directory([("f", Tree::file(""))]))]),
        ),
        (OsStr::from_bytes(b"name\n").to_str().unwrap(), Tree::file("x")),
    ]);
    let target = directory.path().join("target");
    let options = unpack_options(|options| options.metadata = Metadata::Canonical);
    unpacked(&tree.naive_nar(), &target, &options).unwrap();
    if !rustix::process::geteuid().is_root() {
        assert!(fs::remove_file(target.join("locked/file")).is_err(), "the test does not work");
    }
    fs::set_permissions(target.join("locked/sub"), Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(target.join("locked"), Permissions::from_mode(0o000)).unwrap();
    remove(&target).unwrap();
    assert!(!exists(&target));
}

#[test]
fn remove_deletes_read_only_directories_of_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return; // The other test has done it.
    }
    // Build directories are often closed to others.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let program = directory.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let outcome = Command::new(&program)
        .args(["--exact", "disk::remove_deletes_read_only_directories"])
        .current_dir(directory.path())
        .env("TMPDIR", directory.path())
        .gid(65534)
        .uid(65534)
        .output();
    match outcome {
        Ok(outcome) => {
            let output = String::from_utf8_lossy(&outcome.stdout);
            assert!(outcome.status.success() && output.contains("1 passed"), "{output}");
        }
        Err(error) => eprintln!("LEFT OUT: removing as an ordinary user: {error}"),
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_removed_is_named() {
    let error = remove(Path::new("/proc/self/status")).unwrap_err();
    match error {
        Error::FileSystem { operation: Operation::Remove, path, .. } => {
            assert_eq!(path, Path::new("/proc/self/status"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_unpack_can_be_removed() {
    let tree = Tree::directory([("a", Tree::directory([("b", Tree::file("x"))])), ("c", Tree::file("y"))]);
    let nar = tree.naive_nar();
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    for end in (0..nar.len()).step_by(8) {
        let options = unpack_options(|options| options.metadata = Metadata::Canonical);
        let error = unpacked(&nar[..end], &target, &options).unwrap_err();
        assert_eq!(error.io_kind(), Some(ErrorKind::UnexpectedEof));
        if exists(&target) {
            remove(&target).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
