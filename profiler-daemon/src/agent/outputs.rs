//! Where a recorded profile goes: places are claimed before recording and filled after it.

use std::io::{self, Write as _};

use super::error::AgentError;
use crate::cli::{Destination, PendingFile, WriteError};
use crate::model::Profile;
use crate::render::{self, About, Format, View};

/// Claimed places. Dropped before [`Outputs::write`], it leaves nothing behind.
pub(super) struct Outputs(Vec<Place>);

enum Place {
    File { name: String, format: Format, pending: PendingFile },
    Stdout(Format),
}

impl Outputs {
    /// Claims every place, so that a place that cannot be written is known before the recording.
    pub(super) fn claim(destinations: Vec<Destination>) -> Result<Self, WriteError> {
        let claim = |destination| match destination {
            Destination::Stdout(format) => Ok(Place::Stdout(format)),
            Destination::File(file) => {
                let pending = PendingFile::create(&file.path)?;
                Ok(Place::File { name: file.path.display().to_string(), format: file.format, pending })
            }
        };
        destinations.into_iter().map(claim).collect::<Result<_, _>>().map(Self)
    }

    /// Writes the profile to every place; the names of the files, for people. All formats are
    /// rendered before the first file appears.
    pub(super) fn write(
        self,
        profile: &Profile,
        about: &About,
        view: View,
    ) -> Result<Vec<String>, AgentError> {
        let mut rendered = Vec::new();
        for place in self.0 {
            let format = match &place {
                Place::File { format, .. } | Place::Stdout(format) => *format,
            };
            let mut bytes = Vec::new();
            render::render_view(profile, about, format, view, &mut bytes)?;
            rendered.push((place, bytes));
        }
        let mut names = Vec::new();
        for (place, bytes) in rendered {
            match place {
                Place::Stdout(_) => to_stdout(&bytes)?,
                Place::File { name, mut pending, .. } => {
                    pending.write(&bytes)?;
                    pending.commit()?;
                    names.push(name);
                }
            }
        }
        Ok(names)
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn to_stdout(bytes: &[u8]) -> Result<(), AgentError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(AgentError::System { doing: "write to stdout", source: error })
        }
        _ => Ok(()),
    }
}
