//! Completion scripts and manual pages, made from the command line's own description.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Error;
use crate::output;

pub(crate) fn completions(shell: Shell) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "omni-credentials", &mut script);
    output::write(&script)
}

pub(crate) fn manual(folder: Option<&Path>) -> Result<(), Error> {
    if let Some(folder) = folder {
        return clap_mangen::generate_to(Cli::command(), folder)
            .map_err(Error::io(folder.display().to_string()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Error::io("the manual page"))?;
    output::write(&page)
}
