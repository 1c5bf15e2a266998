//! Running a command on a host, as a byte stream each way: the trait, targets, and the local process
