//! Copies a file out of shared memory by an io_uring fixed buffer: `ring FILE TARGET`. While it is registered, nobody can
//! truncate it (with `longpin guard start`).

use std::fs::File;

use longpin::fixed_buffer::FixedBuffer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target] = arguments.as_slice() else {
        return Err("usage: ring FILE TARGET".into());
    };
    let file = File::options().read(true).write(true).open(source)?;
    let target = File::create(target)?;
    let len = file.metadata()?.len();
    let mut buffer = FixedBuffer::register(&file, 0..len)?;
    println!("{source}: {}", buffer.hold().state()?.text());
    buffer.write_to(0..usize::try_from(len)?, &target, 0)?;
    Ok(buffer.unregister()?)
}
