"""From a conversation to tokens and their mask."""
