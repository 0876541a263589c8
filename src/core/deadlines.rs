//! A small table of deadlines, one for each task.

use crate::time::Timestamp;

/// The next deadline of each of up to `N` tasks.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines<Task, const N: usize> {
    entries: [Option<(Task, Timestamp)>; N],
}

impl<Task, const N: usize> Default for Deadlines<Task, N> {
    fn default() -> Self {
        Self { entries: [const { None }; N] }
    }
}

impl<Task: Copy + PartialEq, const N: usize> Deadlines<Task, N> {
    /// Sets the task's deadline. An earlier setting is forgotten.
    ///
    /// # Panics
    /// If there are more than `N` tasks.
    pub fn set(&mut self, task: Task, at: Timestamp) {
        self.clear(task);
        let free = self.entries.iter_mut().find(|entry| entry.is_none());
        *free.expect("there is an entry for each task") = Some((task, at));
    }

    /// Sets the task's deadline, unless it has an earlier one.
    pub fn set_earlier(&mut self, task: Task, at: Timestamp) {
        self.set(task, self.of(task).map_or(at, |known| at.min(known)));
    }

    /// The task's deadline, if it has one.
    pub fn of(&self, task: Task) -> Option<Timestamp> {
        self.entries.iter().flatten().find(|(known, _)| *known == task).map(|(_, at)| *at)
    }

    /// Removes the task's deadline.
    pub fn clear(&mut self, task: Task) {
        for entry in &mut self.entries {
            entry.take_if(|(known, _)| *known == task);
        }
    }

    /// The earliest deadline, if there is any.
    pub fn next(&self) -> Option<Timestamp> {
        self.entries.iter().flatten().map(|(_, at)| *at).min()
    }

    /// Returns a task that is due, and removes its deadline.
    pub fn take_due(&mut self, now: Timestamp) -> Option<Task> {
        let entries = self.entries.iter_mut();
        let due = entries.filter_map(|entry| entry.take_if(|(_, at)| *at <= now)).next();
        due.map(|(task, _)| task)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::START + Duration::from_secs(secs)
    }

    #[test]
    fn each_task_is_due_once_at_its_time() {
        let mut deadlines = Deadlines::<char, 2>::default();
        assert_eq!(deadlines.next(), None);
        deadlines.set('a', at(5));
        deadlines.set('b', at(3));
        deadlines.set('a', at(4));
        assert_eq!(deadlines.next(), Some(at(3)));
        assert_eq!(deadlines.take_due(at(2)), None);
        let due: Vec<char> = std::iter::from_fn(|| deadlines.take_due(at(4))).collect();
        assert_eq!(due.len(), 2, "{due:?}");
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn a_deadline_can_be_moved_earlier_and_removed() {
        let mut deadlines = Deadlines::<char, 2>::default();
        deadlines.set_earlier('a', at(5));
        deadlines.set_earlier('a', at(9));
        assert_eq!(deadlines.next(), Some(at(5)));
        deadlines.set_earlier('a', at(1));
        assert_eq!(deadlines.next(), Some(at(1)));
        deadlines.clear('a');
        assert_eq!(deadlines.next(), None);
    }
}
