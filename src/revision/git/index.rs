//! Git's index: which files it has, and whether something was added to it that is not committed. Pure.
//!
//! Read are the versions 2, 3 and 4 of the file, with the extension that says which directories are as the last commit,
//! or whatever else set the index, left them. An index that is split over two files is not understood and says so.

/// What lies before an entry's hash: times, device, inode, mode, owner and size.
const STAT_BYTES: usize = 40;

const EXTENDED: u16 = 0x4000;
const ASSUME_VALID: u16 = 0x8000;
const STAGE: u16 = 0x3000;
const NAME_LENGTH: u16 = 0x0fff;
/// In the second half of the flags.
const SKIP_WORKTREE: u16 = 0x4000;

/// The deepest directory that is looked for.
const MAX_DEPTH: usize = 128;

/// One file in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Its path from the top of the working tree.
    pub(super) path: &'a [u8],
    /// The hash of what git has of it.
    pub(super) hash: &'a [u8],
    /// Its kind and permissions.
    pub(super) mode: u32,
    /// When it was changed last as far as git knows, in seconds and nanoseconds.
    pub(super) changed: (u32, u32),
    /// Its size, cut to 32 bits.
    pub(super) size: u32,
    /// Whether it is one side of a conflict.
    pub(super) conflict: bool,
    /// Whether git does not look for it on disk.
    pub(super) unwatched: bool,
}

/// An index that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Index<'a> {
    entries: &'a [u8],
    count: u32,
    version: u32,
    hash_len: usize,
    /// The extension that says which directories are as they were committed.
    trees: Option<&'a [u8]>,
}

/// A node of that extension.
struct Tree<'a> {
    name: &'a [u8],
    valid: bool,
    children: usize,
}

impl<'a> Index<'a> {
    /// Reads a file whose hashes are so long; `None` if it is not understood.
    pub(super) fn read(file: &'a [u8], hash_len: usize) -> Option<Self> {
        let mut left = file;
        if take(&mut left, 4)? != b"DIRC" {
            return None;
        }
        let version = number(&mut left)?;
        if !(2..=4).contains(&version) {
            return None;
        }
        let mut index = Self {
            count: number(&mut left)?,
            entries: left,
            version,
            hash_len,
            trees: None,
        };
        let end = index.visit(|_| true)?;
        // What is behind the extensions is a hash of the whole.
        let mut left = end.get(..end.len().checked_sub(hash_len)?)?;
        while !left.is_empty() {
            let name = take(&mut left, 4)?;
            let length = usize::try_from(number(&mut left)?).ok()?;
            let content = take(&mut left, length)?;
            match name {
                b"TREE" => index.trees = Some(content),
                b"link" => return None,
                _ => {}
            }
        }
        Some(index)
    }

    /// Shows the entries until `more` says that it wants no more of them. Returns what is behind those that were shown;
    /// `None` if one of them is not understood.
    pub(super) fn visit(&self, mut more: impl FnMut(&Entry<'_>) -> bool) -> Option<&'a [u8]> {
        let mut left = self.entries;
        let mut path = Vec::new();
        for _ in 0..self.count {
            let begun = left.len();
            let stat = take(&mut left, STAT_BYTES)?;
            let word = |at: usize| {
                let bytes = stat.get(at..at + 4)?;
                Some(u32::from_be_bytes(bytes.try_into().ok()?))
            };
            let hash = take(&mut left, self.hash_len)?;
            let flags = half(&mut left)?;
            let more_flags = if flags & EXTENDED == 0 {
                0
            } else {
                half(&mut left)?
            };
            self.path(&mut path, flags, &mut left)?;
            if self.version < 4 {
                // Each entry ends in one to eight zeros that make its length a multiple of eight.
                let length = begun - left.len();
                take(&mut left, (length / 8 + 1) * 8 - length)?;
            }
            let entry = Entry {
                path: &path,
                hash,
                mode: word(24)?,
                changed: (word(8)?, word(12)?),
                size: word(36)?,
                conflict: flags & STAGE != 0,
                unwatched: flags & ASSUME_VALID != 0 || more_flags & SKIP_WORKTREE != 0,
            };
            if !more(&entry) {
                break;
            }
        }
        Some(left)
    }

    /// Reads a path, which in version 4 says how much of the one before it keeps.
    fn path(&self, path: &mut Vec<u8>, flags: u16, left: &mut &'a [u8]) -> Option<()> {
        if self.version < 4 {
            path.clear();
            let length = usize::from(flags & NAME_LENGTH);
            let length = if flags & NAME_LENGTH == NAME_LENGTH {
                left.iter().position(|byte| *byte == 0)?
            } else {
                length
            };
            path.extend_from_slice(take(left, length)?);
            return Some(());
        }
        let drops = usize::try_from(varint(left)?).ok()?;
        path.truncate(path.len().checked_sub(drops)?);
        let length = left.iter().position(|byte| *byte == 0)?;
        path.extend_from_slice(take(left, length)?);
        take(left, 1)?;
        Some(())
    }

    /// Whether something was added to a directory, or below it, since its content was last a commit's. An index that
    /// does not tell counts as one where that is so.
    pub(super) fn is_staged(&self, directory: &[u8]) -> bool {
        let mut names = directory.split(|byte| *byte == b'/');
        let staged = self
            .trees
            .and_then(|trees| self.is_changed(&mut { trees }, &mut names));
        staged.unwrap_or(true)
    }

    /// Walks down from the top. A directory that is unchanged has none below it that is changed.
    fn is_changed<'n>(
        &self,
        left: &mut &'a [u8],
        names: &mut impl Iterator<Item = &'n [u8]>,
    ) -> Option<bool> {
        let mut tree = self.tree(left)?;
        for _ in 0..MAX_DEPTH {
            if tree.valid {
                return Some(false);
            }
            let Some(name) = names.next().filter(|name| !name.is_empty()) else {
                return Some(true);
            };
            let mut found = None;
            for _ in 0..tree.children {
                let child = self.tree(left)?;
                if child.name == name {
                    found = Some(child);
                    break;
                }
                self.skip(left, child.children)?;
            }
            let Some(child) = found else {
                return Some(true);
            };
            tree = child;
        }
        None
    }

    fn tree(&self, left: &mut &'a [u8]) -> Option<Tree<'a>> {
        let name = until(left, 0)?;
        let entries: i64 = text(until(left, b' ')?)?;
        let children = text(until(left, b'\n')?)?;
        if entries >= 0 {
            take(left, self.hash_len)?;
        }
        Some(Tree {
            name,
            valid: entries >= 0,
            children: usize::try_from(children).ok()?,
        })
    }

    /// Passes over so many nodes and all below them.
    fn skip(&self, left: &mut &'a [u8], mut nodes: usize) -> Option<()> {
        while nodes > 0 {
            nodes = (nodes - 1).checked_add(self.tree(left)?.children)?;
        }
        Some(())
    }
}

fn take<'a>(left: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(length)?;
    *left = rest;
    Some(taken)
}

/// What comes before a byte, which is passed over.
fn until<'a>(left: &mut &'a [u8], byte: u8) -> Option<&'a [u8]> {
    let length = left.iter().position(|it| *it == byte)?;
    let taken = take(left, length)?;
    take(left, 1)?;
    Some(taken)
}

fn number(left: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(left, 4)?.try_into().ok()?))
}

fn half(left: &mut &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(take(left, 2)?.try_into().ok()?))
}

fn text(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A number in groups of seven bits, the highest first, each but the last one less than it says.
fn varint(left: &mut &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for group in 0..9 {
        let byte = take(left, 1)?[0];
        if group > 0 {
            value += 1;
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: [u8; 20] = [0xab; 20];

    fn entry(version: u32, path: &str, flags: u16, prefix: Option<(u8, &str)>) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, word) in [1, 2, 30, 40, 5, 6, 0o100_644, 7, 8, 900_u32]
            .iter()
            .enumerate()
        {
            assert!(at < 10);
            out.extend(word.to_be_bytes());
        }
        out.extend(HASH);
        let length = u16::try_from(path.len()).unwrap().min(NAME_LENGTH);
        out.extend((flags | length).to_be_bytes());
        if flags & EXTENDED != 0 {
            out.extend(SKIP_WORKTREE.to_be_bytes());
        }
        match prefix {
            Some((drops, rest)) => {
                out.push(drops);
                out.extend(rest.bytes());
                out.push(0);
            }
            None => {
                out.extend(path.bytes());
                out.push(0);
                while version < 4 && out.len() % 8 != 0 {
                    out.push(0);
                }
            }
        }
        out
    }

    fn file(version: u32, entries: &[Vec<u8>], extensions: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut out = b"DIRC".to_vec();
        out.extend(version.to_be_bytes());
        out.extend(u32::try_from(entries.len()).unwrap().to_be_bytes());
        out.extend(entries.concat());
        for (name, content) in extensions {
            out.extend(*name);
            out.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
            out.extend(*content);
        }
        out.extend([0; 20]);
        out
    }

    fn paths(index: &Index<'_>) -> Vec<(String, bool, bool)> {
        let mut paths = Vec::new();
        let end = index.visit(|entry| {
            assert_eq!((entry.hash, entry.mode), (&HASH[..], 0o100_644));
            assert_eq!((entry.changed, entry.size), ((30, 40), 900));
            let path = String::from_utf8(entry.path.to_vec()).unwrap();
            paths.push((path, entry.conflict, entry.unwatched));
            true
        });
        assert!(end.is_some());
        paths
    }

    fn sample(version: u32) -> Vec<u8> {
        let long = format!("src/{}.js", "x".repeat(5_000));
        let prefix = |drops: u8, rest| (version == 4).then_some((drops, rest));
        let extended = if version == 2 { 0 } else { EXTENDED };
        let entries = [
            entry(version, "src/a.js", 0, prefix(0, "src/a.js")),
            entry(version, "src/bb.js", extended, prefix(4, "bb.js")),
            entry(version, "src/c.js", 0x2000, prefix(5, "c.js")),
            entry(version, &long, ASSUME_VALID, prefix(4, &long[4..])),
        ];
        file(version, &entries, &[(b"EOIE", b"whatever")])
    }

    #[test]
    fn the_three_forms_of_an_index_are_read_alike() {
        let long = format!("src/{}.js", "x".repeat(5_000));
        for version in [2, 3, 4] {
            let file = sample(version);
            let index = Index::read(&file, 20).unwrap();
            let expected = [
                ("src/a.js".to_owned(), false, false),
                ("src/bb.js".to_owned(), false, version > 2),
                ("src/c.js".to_owned(), true, false),
                (long.clone(), false, true),
            ];
            assert_eq!(paths(&index), expected, "{version}");
        }
    }

    #[test]
    fn an_index_that_is_cut_or_of_another_kind_is_not_understood() {
        for version in [2, 3, 4] {
            let whole = sample(version);
            for cut in 0..whole.len() - 20 {
                // The last bytes are a hash that nothing is asked of.
                let read = Index::read(&whole[..cut], 20);
                assert!(read.is_none_or(|index| index.trees.is_none()), "{cut}");
            }
        }
        assert!(Index::read(&file(5, &[], &[]), 20).is_none());
        assert!(Index::read(&file(2, &[], &[(b"link", b"x")]), 20).is_none());
        assert!(Index::read(&[0xff; 4_096], 20).is_none());
        let mut many = b"DIRC\0\0\0\x04\xff\xff\xff\xff".to_vec();
        many.extend([0; 200]);
        assert!(Index::read(&many, 20).is_none());
    }

    #[test]
    fn what_was_added_since_the_last_commit_is_told_by_its_directory() {
        let node = |name: &str, entries: i32, children: u32| {
            let mut node = format!("{name}\0{entries} {children}\n").into_bytes();
            if entries >= 0 {
                node.extend(HASH);
            }
            node
        };
        let trees = [
            node("", -1, 3),
            node("docs", 2, 1),
            node("en", 1, 0),
            node("lib", -1, 1),
            node("deep", 4, 0),
            node("src", -1, 0),
        ]
        .concat();
        let with = file(2, &[], &[(b"TREE", &trees)]);
        let index = Index::read(&with, 20).unwrap();
        #[rustfmt::skip]
        let cases = [
            ("", true), ("docs", false), ("docs/en", false), ("lib", true), ("lib/deep", false), ("src", true),
            ("src/new", true), ("new", true),
        ];
        for (directory, staged) in cases {
            assert_eq!(index.is_staged(directory.as_bytes()), staged, "{directory}");
        }
        let clean = file(2, &[], &[(b"TREE", &node("", 5, 0))]);
        assert!(!Index::read(&clean, 20).unwrap().is_staged(b"src"));
        let silent = file(2, &[], &[]);
        assert!(Index::read(&silent, 20).unwrap().is_staged(b"src"));
        for cut in 0..trees.len() {
            let torn = file(2, &[], &[(b"TREE", &trees[..cut])]);
            let _ = Index::read(&torn, 20).unwrap().is_staged(b"src");
        }
    }
}
