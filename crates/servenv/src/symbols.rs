//! Names of the functions at addresses of this process.
//!
//! What is read of the debug information is a hundred times what a server at rest holds, so nothing of it outlives
//! [`Symbols`]: [`addr2line::Loader`] maps the files and drops what it made of them.

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use addr2line::Loader;

/// A program or library that is mapped into the process.
struct Object {
    path: PathBuf,
    /// What is added to the addresses in its file.
    bias: u64,
    segments: Vec<Range<u64>>,
    /// Its file, once it is asked; `None` when it cannot be read.
    loader: Option<Option<Loader>>,
}

/// The programs and libraries of this process, at the time of [`Symbols::new`].
pub(crate) struct Symbols(Vec<Object>);

impl Symbols {
    pub(crate) fn new() -> Self {
        let mut objects = Vec::new();
        // SAFETY: the callback takes the pointer for what it is, and the vector outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(add_object), (&raw mut objects).cast()) };
        Self(objects)
    }

    /// The functions at an address that a call returns to, the innermost first: more than one where calls were inlined. Without
    /// a name, the name of the file; empty outside of all files.
    pub(crate) fn functions(&mut self, return_address: usize) -> Vec<String> {
        // The call itself is what lies before.
        let address = (return_address as u64).saturating_sub(1);
        let Some(object) = self.0.iter_mut().find(|o| o.segments.iter().any(|s| s.contains(&address))) else {
            return Vec::new();
        };
        let names = object.names(address - object.bias);
        if !names.is_empty() {
            return names;
        }
        let file = object.path.file_name().unwrap_or(object.path.as_os_str());
        vec![format!("[{}]", file.to_string_lossy())]
    }
}

impl Object {
    fn names(&mut self, address: u64) -> Vec<String> {
        let path = &self.path;
        let Some(loader) = self.loader.get_or_insert_with(|| Loader::new(path).ok()) else { return Vec::new() };
        let mut names = Vec::new();
        if let Ok(mut frames) = loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                if let Some(name) = frame.function.as_ref().and_then(|function| function.demangle().ok()) {
                    names.push(name.into_owned());
                }
            }
        }
        if names.is_empty()
            && let Some(name) = loader.find_symbol(address)
        {
            names.push(addr2line::demangle_auto(name.into(), None).into_owned());
        }
        names
    }
}

/// For `dl_iterate_phdr`: one object, added to the `Vec<Object>` behind `objects`.
unsafe extern "C" fn add_object(info: *mut libc::dl_phdr_info, _size: usize, objects: *mut c_void) -> c_int {
    // SAFETY: both pointers are good for the duration of the call, and so are the name and the headers of the object.
    let (objects, info) = unsafe { (&mut *objects.cast::<Vec<Object>>(), &*info) };
    let name = if info.dlpi_name.is_null() { c"" } else { unsafe { CStr::from_ptr(info.dlpi_name) } };
    let headers = match info.dlpi_phdr.is_null() {
        true => &[][..],
        false => unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) },
    };
    // The program itself has no name there.
    let path =
        if name.is_empty() { Path::new("/proc/self/exe") } else { Path::new(OsStr::from_bytes(name.to_bytes())) };
    let bias = info.dlpi_addr;
    let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let segments = loaded.map(|header| bias + header.p_vaddr..bias + header.p_vaddr + header.p_memsz).collect();
    objects.push(Object { path: path.to_owned(), bias, segments, loader: None });
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_of_its_own() -> usize {
        // Return addresses lie behind the first instruction.
        std::hint::black_box(a_function_of_its_own as fn() -> usize) as usize + 1
    }

    #[test]
    fn functions_of_the_program_and_of_libraries_have_names() {
        let mut symbols = Symbols::new();
        let own = symbols.functions(a_function_of_its_own());
        assert!(own.last().is_some_and(|name| name.ends_with("a_function_of_its_own")), "{own:?}");
        let library = symbols.functions(libc::getppid as *const () as usize + 1);
        assert!(library.iter().any(|name| name.contains("getppid") || name.starts_with("[libc")), "{library:?}");
        assert_eq!(symbols.functions(1), Vec::<String>::new());
    }
}
