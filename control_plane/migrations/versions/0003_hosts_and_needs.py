"""What a run needs a cluster to have, which clusters had no room for it, and hosts of attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NEW = {
    "execution": ("images", "secrets", "no_room"),
    "node_state": ("host", "avoided"),
    "node_output": ("host",),
}


def upgrade() -> None:
    for table, names in NEW.items():
        for name in names:
            # Rows that are there already said nothing of it.
            op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=""))
