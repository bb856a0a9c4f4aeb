//! What of the program's text counts as resident memory.
//!
//! Starting up runs through code that serving never touches again, and the kernel maps a page that is touched together
//! with its neighbours. For a server at rest that is the larger part of its resident memory.

use std::io;
use std::time::Duration;

/// After this time a server has opened its connections and read its records.
const STARTED: Duration = Duration::from_secs(10);

/// Unmaps the pages of the program's text once, when the start-up is over. What is still used comes back from the page
/// cache at its next use, without reading the disk.
pub(crate) async fn give_back_after_start() {
    tokio::time::sleep(STARTED).await;
    if let Err(error) = give_back() {
        tracing::debug!("the program's text stays mapped as it is: {error}");
    }
}

fn give_back() -> io::Result<()> {
    for text in mapped_text()? {
        // SAFETY: a private mapping of a file that nobody has written to is read from that file again at the next use.
        // Nobody writes to these: the program is position-independent, its relocations are all in the data that follows.
        if unsafe { libc::madvise(text.start as *mut libc::c_void, text.len(), libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Addresses at which the program itself is mapped: its code, and the part before it, which has constants, tables for
/// unwinding and what the dynamic linker read once.
fn mapped_text() -> io::Result<Vec<std::ops::Range<usize>>> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let range = |line: &str| {
        // address perms offset dev inode path
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (permissions, offset) = (fields.next()?, fields.next()?);
        let first = usize::from_str_radix(offset, 16).is_ok_and(|offset| offset == 0);
        let unwritten = permissions == "r-xp" || permissions == "r--p" && first;
        let path = line.find('/').map(|at| &line[at..])?;
        let address = |hex| usize::from_str_radix(hex, 16).ok();
        (unwritten && program.as_os_str() == path).then_some(address(start)?..address(end)?)
    };
    Ok(maps.lines().filter_map(range).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the program's text that are mapped now.
    fn resident() -> usize {
        let text = mapped_text().expect("this process has maps");
        assert!(!text.is_empty(), "the program has text");
        let smaps = std::fs::read_to_string("/proc/self/smaps").expect("this process has maps");
        let mut inside = false;
        let mut kilobytes = 0;
        for line in smaps.lines() {
            if let Some((start, _)) = line.split_once('-')
                && let Ok(start) = usize::from_str_radix(start, 16)
            {
                inside = text.iter().any(|range| range.start == start);
            } else if inside && let Some(rss) = line.strip_prefix("Rss:") {
                kilobytes += rss.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
            }
        }
        kilobytes * 1024
    }

    #[test]
    fn text_that_is_not_used_any_more_is_not_resident() {
        // Touches all of it, as a long start-up would.
        for range in mapped_text().expect("this process has maps") {
            for page in range.step_by(4096) {
                // SAFETY: a mapped, readable byte of this program.
                unsafe { std::ptr::read_volatile(page as *const u8) };
            }
        }
        let before = resident();
        give_back().expect("the kernel takes them");
        let after = resident();
        assert!(after < before / 2, "{before} bytes before, {after} after");
    }
}
