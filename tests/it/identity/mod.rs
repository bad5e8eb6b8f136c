mod per_user;
